/* Time since boot: see clock.c. */
#ifndef GUEST_CLOCK_H
#define GUEST_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

void clock_init(void);

/* The interrupt of IRQ0, called with interrupts off. */
void clock_tick(void);

/* Milliseconds since clock_init(), in steps of one tick. Wraps after 49 days: compare with clock_reached()
 * only. */
uint32_t clock_now_ms(void);

/* True when `now_ms` is `deadline_ms` or later; right for distances below 2^31 ms. */
static inline bool clock_reached(uint32_t now_ms, uint32_t deadline_ms)
{
	return (int32_t)(now_ms - deadline_ms) >= 0;
}

#endif
