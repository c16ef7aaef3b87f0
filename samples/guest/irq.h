/* Interrupts: see irq.c. */
#ifndef GUEST_IRQ_H
#define GUEST_IRQ_H

/* Loads the IDT, moves the i8259 pair to vectors 32..47 and lets IRQ0 and IRQ4 through to the CPU. Leaves
 * interrupts disabled. To be called before the devices are initialised: the controllers forget a request that
 * was there before. */
void irq_init(void);

/* Loads an empty IDT and raises an exception: no handler, no double fault handler, so the CPU shuts down and
 * the machine resets (Intel SDM volume 3, "Interrupt 8 - Double Fault Exception"). */
_Noreturn void irq_triple_fault(void);

#endif
