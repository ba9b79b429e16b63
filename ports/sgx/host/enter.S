/* Calls into enclaves. */
  .section .note.GNU-stack, "", @progbits
  .set ENCLU_EENTER, 2
  .set SYS_ARCH_PRCTL, 158
  .set ARCH_SET_FS, 0x1002

/* int ttx_enter(vdso_sgx_enter_enclave_t vdso, void *argument, struct sgx_enclave_run *run)
 *
 * The vDSO saves rbp and rbx; all else that a function of C has to keep, an enclave may have changed. */
  .text
  .globl ttx_enter
  .type ttx_enter, @function
ttx_enter:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  sub $16, %rsp
  stmxcsr 8(%rsp)
  fnstcw (%rsp)
  mov %rdi, %rax
  mov %rsi, %rdi
  push %rdx
  xor %esi, %esi
  xor %edx, %edx
  mov $ENCLU_EENTER, %ecx
  xor %r8d, %r8d
  xor %r9d, %r9d
  call *%rax
  add $8, %rsp
  cld
  ldmxcsr 8(%rsp)
  fldcw (%rsp)
  add $16, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
  .size ttx_enter, . - ttx_enter

/* Stands for the vDSO's function: enters ttx_place (emulated.c) as EENTER does, but in the worst state that a host could
 * leave the processor in, and returns what the handler of signals puts into rax. */
  .set PLACE_STACK, 0
  .set PLACE_FRAME, 8
  .set PLACE_RETURN, 16
  .set PLACE_ENTRY, 24
  .set PLACE_FS, 32
  .set PLACE_TCS, 40

  .globl ttx_emulated_vdso
  .type ttx_emulated_vdso, @function
ttx_emulated_vdso:
  push %rbp
  mov %rsp, %rbp
  push %rbx
  lea back(%rip), %r14
  lea ttx_place(%rip), %rbx
  mov %rsp, PLACE_STACK(%rbx)
  mov %rbp, PLACE_FRAME(%rbx)
  mov %r14, PLACE_RETURN(%rbx)
  mov %rdi, %r12
  mov $SYS_ARCH_PRCTL, %eax
  mov $ARCH_SET_FS, %edi
  mov PLACE_FS(%rbx), %rsi
  syscall
  mov %r12, %rdi
  mov %r14, %rcx
  mov PLACE_TCS(%rbx), %rbx
  mov $-1, %rdx
  mov %rdx, %rsi
  mov %rdx, %r8
  mov %rdx, %r9
  mov %rdx, %r10
  mov %rdx, %r11
  mov %rdx, %r12
  mov %rdx, %r13
  mov %rdx, %r14
  mov %rdx, %r15
  pcmpeqd %xmm0, %xmm0
  movaps %xmm0, %xmm7
  movaps %xmm0, %xmm15
  ldmxcsr odd_rounding(%rip)
  fldcw odd_precision(%rip)
  xor %eax, %eax
  std
  jmp *PLACE_ENTRY + ttx_place(%rip)
back:
  pop %rbx
  pop %rbp
  ret
  .size ttx_emulated_vdso, . - ttx_emulated_vdso

  .section .rodata
  .balign 4
odd_rounding:
  .long 0xffc0 /* towards zero, denormals as zeroes */
odd_precision:
  .short 0xc7f
