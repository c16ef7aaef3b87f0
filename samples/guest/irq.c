/*
 * Owns the IDT, the two i8259 interrupt controllers and the way from them to the CPU.
 *
 * Never enables the interrupt flag: guest.c does, once all is set up. There is no gate for CPU exceptions: a
 * bug in the guest ends as a triple fault, which every machine monitor sees as a reset. Nothing here knows
 * what a tick or a character means.
 *
 * Sources: Intel 8259A datasheet (ICW1..ICW4, OCW1, OCW2, "default IR7" for a request that went away);
 * Intel SDM volume 3, chapter 6 (gates) and "Local Vector Table", "Spurious Interrupt" of the local APIC;
 * Intel MultiProcessor Specification 1.4, 3.6.2.2 (virtual wire mode).
 */
#include "irq.h"

#include <stdint.h>

#include "clock.h"
#include "console.h"
#include "io.h"

enum {
	PIC_MASTER = 0x20,
	PIC_SLAVE = 0xa0,
	PIC_DATA = 1, /* offset of the data port */

	ICW1_INIT_WITH_ICW4 = 0x11, /* edge triggered, cascaded */
	ICW3_MASTER_SLAVE_ON_IR2 = 0x04,
	ICW3_SLAVE_IDENTITY = 0x02,
	ICW4_8086 = 0x01,
	OCW2_EOI = 0x20,

	IRQ_PIT = 0,
	IRQ_UART = 4,
	IRQ_SPURIOUS = 7,
	IRQ_SPURIOUS_APIC = 15, /* free, as IRQ8..15 stay masked; the vector must end in four ones */

	VECTOR_BASE = 32, /* below are the CPU's exceptions */
	VECTORS = VECTOR_BASE + 16,

	APIC_SVR_ENABLE = 0x100,
	APIC_LVT_EXTINT = 0x700, /* not masked */

	CODE_SELECTOR = 0x08,   /* of the GDT in start.S */
	GATE_INTERRUPT32 = 0x8e /* present, ring 0, interrupts off in the handler */
};

#define APIC_SVR       0xfee000f0U
#define APIC_LVT_LINT0 0xfee00350U

struct gate {
	uint16_t offset_low;
	uint16_t selector;
	uint8_t zero;
	uint8_t type;
	uint16_t offset_high;
};

struct table_pointer {
	uint16_t limit;
	uint32_t base;
} __attribute__((packed));

struct interrupt_frame {
	uint32_t eip;
	uint32_t cs;
	uint32_t eflags;
};

typedef void interrupt_handler(struct interrupt_frame *frame);

static struct gate idt[VECTORS];

__attribute__((interrupt)) static void irq_on_pit(struct interrupt_frame *frame)
{
	(void)frame;
	clock_tick();
	io_out8(PIC_MASTER, OCW2_EOI);
}

__attribute__((interrupt)) static void irq_on_uart(struct interrupt_frame *frame)
{
	(void)frame;
	console_receive();
	io_out8(PIC_MASTER, OCW2_EOI);
}

/* No EOI: neither controller has such a request in service. */
__attribute__((interrupt)) static void irq_on_spurious(struct interrupt_frame *frame)
{
	(void)frame;
}

static void gate_set(unsigned int irq, interrupt_handler *handler)
{
	uint32_t address = (uint32_t)handler;

	idt[VECTOR_BASE + irq] = (struct gate){
	    .offset_low = (uint16_t)(address & 0xffff),
	    .selector = CODE_SELECTOR,
	    .type = GATE_INTERRUPT32,
	    .offset_high = (uint16_t)(address >> 16),
	};
}

static void idt_load(uint32_t base, uint16_t limit)
{
	struct table_pointer pointer = {.limit = limit, .base = base};

	__asm__ volatile("lidt %0" : : "m"(pointer));
}

static void pic_init(void)
{
	io_out8(PIC_MASTER, ICW1_INIT_WITH_ICW4);
	io_out8(PIC_MASTER + PIC_DATA, VECTOR_BASE);
	io_out8(PIC_MASTER + PIC_DATA, ICW3_MASTER_SLAVE_ON_IR2);
	io_out8(PIC_MASTER + PIC_DATA, ICW4_8086);

	io_out8(PIC_SLAVE, ICW1_INIT_WITH_ICW4);
	io_out8(PIC_SLAVE + PIC_DATA, VECTOR_BASE + 8);
	io_out8(PIC_SLAVE + PIC_DATA, ICW3_SLAVE_IDENTITY);
	io_out8(PIC_SLAVE + PIC_DATA, ICW4_8086);

	io_out8(PIC_MASTER + PIC_DATA, (uint8_t) ~(1U << IRQ_PIT | 1U << IRQ_UART));
	io_out8(PIC_SLAVE + PIC_DATA, 0xff);
}

static void apic_write(uint32_t address, uint32_t value)
{
	*(volatile uint32_t *)address = value;
}

/* Virtual wire mode: the i8259's request passes the local APIC by LINT0. SeaBIOS has done this already, qboot
 * has not, and after reset LINT0 is masked: without it no interrupt reaches the CPU of a microvm. */
static void apic_init(void)
{
	apic_write(APIC_SVR, APIC_SVR_ENABLE | (VECTOR_BASE + IRQ_SPURIOUS_APIC));
	apic_write(APIC_LVT_LINT0, APIC_LVT_EXTINT);
}

void irq_init(void)
{
	gate_set(IRQ_PIT, irq_on_pit);
	gate_set(IRQ_UART, irq_on_uart);
	gate_set(IRQ_SPURIOUS, irq_on_spurious);
	gate_set(IRQ_SPURIOUS_APIC, irq_on_spurious);
	idt_load((uint32_t)idt, sizeof(idt) - 1);
	pic_init();
	apic_init();
}

_Noreturn void irq_triple_fault(void)
{
	idt_load(0, 0);
	for (;;)
		__asm__ volatile("int3");
}
