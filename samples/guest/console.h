/* The serial console: see console.c. */
#ifndef GUEST_CONSOLE_H
#define GUEST_CONSOLE_H

#include <stdint.h>

/* 8 data bits, no parity, receive interrupt on. A character that is already there is kept and interrupts at
 * once. */
void console_init(void);

/* The interrupt of IRQ4, called with interrupts off. */
void console_receive(void);

/* The next received character, 0..255, or -1 when there is none. To be called with interrupts off. */
int console_take(void);

/* Each waits for the transmitter; text goes out as it is. */
void console_put(char c);
void console_print(const char *text);
void console_print_number(uint32_t number);

/* Waits until the last character has left the UART. */
void console_drain(void);

#endif
