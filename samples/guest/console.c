/*
 * Owns the 16550 UART at 0x3f8.
 *
 * Receives by interrupt into a ring. When the ring is full the receive interrupt is turned off and the UART
 * keeps what it has: a sender with flow control (QEMU's chardev has it) waits, and no input is lost. The
 * FIFOs stay as they are found: turning them on would clear what came in before us. Sends by polling: no
 * character is written before the transmit holding register is empty.
 *
 * Source: National Semiconductor PC16550D datasheet.
 */
#include "console.h"

#include <stdbool.h>

#include "io.h"

enum {
	UART = 0x3f8,
	UART_DATA = UART + 0, /* RBR, THR; divisor low when LCR_DLAB */
	UART_IER = UART + 1,  /* divisor high when LCR_DLAB */
	UART_LCR = UART + 3,
	UART_MCR = UART + 4,
	UART_LSR = UART + 5,

	IER_RECEIVE = 0x01,
	LCR_8N1 = 0x03,
	LCR_DLAB = 0x80,
	MCR_DTR_RTS_OUT2 = 0x0b, /* OUT2 gates the interrupt line on a PC */
	LSR_DATA_READY = 0x01,
	LSR_THR_EMPTY = 0x20,
	LSR_TRANSMITTER_EMPTY = 0x40,

	DIVISOR_115200 = 1,

	RING_SIZE = 256 /* a power of two */
};

/* Written by console_receive() and console_take(), both with interrupts off. The indices run free. */
static struct {
	uint8_t bytes[RING_SIZE];
	uint32_t head;
	uint32_t tail;
	bool stopped;
} ring;

void console_init(void)
{
	io_out8(UART_IER, 0);
	io_out8(UART_LCR, LCR_DLAB);
	io_out8(UART_DATA, DIVISOR_115200);
	io_out8(UART_IER, 0);
	io_out8(UART_LCR, LCR_8N1);
	io_out8(UART_MCR, MCR_DTR_RTS_OUT2);
	io_out8(UART_IER, IER_RECEIVE);
}

void console_receive(void)
{
	while (io_in8(UART_LSR) & LSR_DATA_READY) {
		if (ring.head - ring.tail == RING_SIZE) {
			ring.stopped = true;
			io_out8(UART_IER, 0);
			return;
		}
		ring.bytes[ring.head % RING_SIZE] = io_in8(UART_DATA);
		ring.head++;
	}
}

int console_take(void)
{
	int c;

	if (ring.head == ring.tail)
		return -1;
	c = ring.bytes[ring.tail % RING_SIZE];
	ring.tail++;
	if (ring.stopped && ring.head - ring.tail <= RING_SIZE / 2) {
		ring.stopped = false;
		io_out8(UART_IER, IER_RECEIVE);
	}
	return c;
}

void console_put(char c)
{
	while (!(io_in8(UART_LSR) & LSR_THR_EMPTY))
		;
	io_out8(UART_DATA, (uint8_t)c);
}

void console_print(const char *text)
{
	for (; *text; text++)
		console_put(*text);
}

void console_print_number(uint32_t number)
{
	char digits[11]; /* 2^32-1 has ten, then the NUL */
	char *at = digits + sizeof(digits) - 1;

	*at = '\0';
	do {
		*--at = (char)('0' + number % 10);
		number /= 10;
	} while (number);
	console_print(at);
}

void console_drain(void)
{
	while (!(io_in8(UART_LSR) & LSR_TRANSMITTER_EMPTY))
		;
}
