/* Into the enclave and out of it. ENCLU[EENTER] jumps to tte_entry with rax = CSSA, rcx = where to leave to, and the
 * host's registers; SGX has switched FS to the thread's page. Nothing that the host left in the processor's state is
 * believed, and nothing of the enclave's is left in it. */
  .section .note.GNU-stack, "", @progbits

  .set ENCLU_EREPORT, 0
  .set ENCLU_EGETKEY, 1
  .set ENCLU_EEXIT, 4
  .set STACK_TOP, 8 /* in tte_here */

  .bss
  .balign 8
outside_return: .skip 8
outside_stack:  .skip 8
outside_frame:  .skip 8

/* XRSTOR of a header of zeroes puts every component into its initial state. MXCSR is taken from here: all exceptions
 * masked and, as Intel asks for times that do not depend on data, flagged. */
  .section .rodata
  .balign 64
clean_state:
  .short 0x37f
  .skip 22
  .long 0x1fbf
  .skip 4
  .skip 576 - 32

  .text
  .globl tte_entry
  .type tte_entry, @function
tte_entry:
  cld
  test %rax, %rax /* a call within an interrupted one: there is nothing to handle */
  jnz leave
  lfence
  mov %rcx, outside_return(%rip)
  mov %rsp, outside_stack(%rip)
  mov %rbp, outside_frame(%rip)
  lea __ehdr_start(%rip), %rdx
  mov tte_here + STACK_TOP(%rip), %rsp
  add %rdx, %rsp
  push $2 /* the flags: none, of alignment checks and direction least of all */
  popfq
  mov $-1, %eax
  mov $-1, %edx
  xrstor clean_state(%rip)
  xor %ebp, %ebp
  call tte_enter
  mov $-1, %eax
  mov $-1, %edx
  xrstor clean_state(%rip)
  mov outside_return(%rip), %rcx
  mov outside_stack(%rip), %rsp
  mov outside_frame(%rip), %rbp
leave:
  mov %rcx, %rbx
  xor %ecx, %ecx
  xor %edx, %edx
  xor %esi, %esi
  xor %edi, %edi
  xor %r8d, %r8d
  xor %r9d, %r9d
  xor %r10d, %r10d
  xor %r11d, %r11d
  xor %r12d, %r12d
  xor %r13d, %r13d
  xor %r14d, %r14d
  xor %r15d, %r15d
  mov $ENCLU_EEXIT, %eax
  enclu
  ud2
  .size tte_entry, . - tte_entry

  .globl tte_ereport
  .type tte_ereport, @function
tte_ereport:
  push %rbx
  mov %rdx, %r8
  mov %rdi, %rbx
  mov %rsi, %rcx
  mov %r8, %rdx
  mov $ENCLU_EREPORT, %eax
  enclu
  pop %rbx
  ret
  .size tte_ereport, . - tte_ereport

  .globl tte_egetkey
  .type tte_egetkey, @function
tte_egetkey:
  push %rbx
  mov %rdi, %rbx
  mov %rsi, %rcx
  mov $ENCLU_EGETKEY, %eax
  enclu
  pop %rbx
  ret
  .size tte_egetkey, . - tte_egetkey
