/*
 * The instructions that C has no words for: port I/O and the interrupt flag (Intel SDM volume 2).
 */
#ifndef GUEST_IO_H
#define GUEST_IO_H

#include <stdint.h>

static inline void io_out8(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void io_out32(uint16_t port, uint32_t value)
{
	__asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint8_t io_in8(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}

static inline void cpu_irq_disable(void)
{
	__asm__ volatile("cli" : : : "memory");
}

static inline void cpu_irq_enable(void)
{
	__asm__ volatile("sti" : : : "memory");
}

/* Enables interrupts and sleeps until one. STI takes effect after the next instruction, so an interrupt that
 * is already pending ends the HLT: what was checked with interrupts off cannot be missed. */
static inline void cpu_irq_enable_and_sleep(void)
{
	__asm__ volatile("sti\n\thlt" : : : "memory");
}

#endif
