/*
 * Owns the i8254 timer: counter 0 interrupts TICK_HZ times a second and time is the count of those
 * interrupts.
 *
 * A tick is slow enough for an idle guest to cost the host next to nothing. Ticks that fall together while
 * the host does not run the guest are one: under heavy load the clock is late, never early, and never goes
 * back.
 *
 * Source: Intel 8254 datasheet (control word, mode 2 "rate generator"); input 1193182 Hz as in every PC.
 */
#include "clock.h"

#include "io.h"

#ifndef TICK_HZ
#define TICK_HZ 100
#endif

enum {
	PIT_COUNTER0 = 0x40,
	PIT_CONTROL = 0x43,
	PIT_COUNTER0_LOW_HIGH_MODE2 = 0x34,
	PIT_INPUT_HZ = 1193182,
	PIT_DIVISOR = (PIT_INPUT_HZ + TICK_HZ / 2) / TICK_HZ,

	TICK_MS = 1000 / TICK_HZ
};

_Static_assert(PIT_DIVISOR <= 0xffff, "the counter has 16 bits");
_Static_assert(1000 % TICK_HZ == 0, "a tick is a whole number of milliseconds");

static volatile uint32_t now_ms;

void clock_init(void)
{
	io_out8(PIT_CONTROL, PIT_COUNTER0_LOW_HIGH_MODE2);
	io_out8(PIT_COUNTER0, PIT_DIVISOR & 0xff);
	io_out8(PIT_COUNTER0, PIT_DIVISOR >> 8);
}

void clock_tick(void)
{
	now_ms += TICK_MS;
}

uint32_t clock_now_ms(void)
{
	return now_ms;
}
