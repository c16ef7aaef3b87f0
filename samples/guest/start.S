/*
 * The first instructions: the PVH entry point, the segments and the stack.
 *
 * Owns: the ELF note that makes this file a PVH kernel, the GDT, the boot stack.
 * The loader enters in 32-bit protected mode, paging and interrupts off, with the physical address of
 * hvm_start_info in %ebx and a GDT of its own that we must not rely on (Xen docs/misc/pvh.pandoc,
 * "x86/HVM direct boot ABI").
 */

#define XEN_ELFNOTE_PHYS32_ENTRY 18 /* Xen include/public/elfnote.h */
#define CODE_SELECTOR 0x08          /* known to irq.c too */
#define DATA_SELECTOR 0x10

        .section .note.pvh, "a", @note
        .balign 4
        .long   4                       /* size of the name, its NUL included */
        .long   4                       /* size of the entry address */
        .long   XEN_ELFNOTE_PHYS32_ENTRY
        .asciz  "Xen"
        .long   start

        .section .text.start, "ax", @progbits
        .globl  start
        .type   start, @function
start:
        cli
        cld
        lgdt    gdt_pointer
        ljmp    $CODE_SELECTOR, $1f
1:      movl    $DATA_SELECTOR, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %fs
        movl    %eax, %gs
        movl    %eax, %ss

        /* Zero .bss ourselves: one promise less to ask of the loader. */
        xorl    %eax, %eax
        movl    $bss_start, %edi
        movl    $bss_end, %ecx
        subl    %edi, %ecx
        rep stosb

        movl    $stack_top, %esp
        xorl    %ebp, %ebp
        subl    $12, %esp               /* i386 psABI: 16-byte alignment where the argument lies */
        pushl   %ebx
        call    guest_main
2:      cli
        hlt
        jmp     2b
        .size   start, . - start

        .section .rodata
        .balign 8
gdt:    .quad   0
        .quad   0x00cf9b000000ffff      /* code: base 0, limit 4 GiB, 32-bit, read and execute, accessed */
        .quad   0x00cf93000000ffff      /* data: base 0, limit 4 GiB, 32-bit, read and write, accessed */
gdt_pointer:
        .word   . - gdt - 1
        .long   gdt

        .section .bss
        .balign 16
        .skip   4096
stack_top:

        .section .note.GNU-stack, "", @progbits
