// Switches between stacks on one OS thread: x86-64 and AArch64, on Unix.
#pragma once
#include <cstdint>

// Saves the callee-saved registers on the current stack and its pointer in *from, and goes on where `to` was
// saved.
extern "C" void exsa_emulated_switch(void **from, void *to) __asm__("exsa_emulated_switch");

#if defined(__x86_64__)
__asm__(R"(
.text
.globl exsa_emulated_switch
exsa_emulated_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");

// The stack pointer of a stack that ends at `end`, a multiple of 16, on which `entry` will start.
inline void *prepare_stack(char *end, void (*entry)())
{
    void **top = (void **)end;
    top[-1] = nullptr; // the return address of `entry`, which does not return
    top[-2] = (void *)entry;
    for (int i = 3; i <= 8; ++i) top[-i] = nullptr;
    return top - 8;
}
#elif defined(__aarch64__)
__asm__(R"(
.text
.globl exsa_emulated_switch
exsa_emulated_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x2, sp
    str x2, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
)");

inline void *prepare_stack(char *end, void (*entry)())
{
    void **top = (void **)(end - 160);
    for (int i = 0; i < 20; ++i) top[i] = nullptr;
    top[11] = (void *)entry;
    return top;
}
#else
#error "the emulator switches stacks on x86-64 and AArch64 only"
#endif
