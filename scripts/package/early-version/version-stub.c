/*
 * The first instructions of a packed program: they answer `--version` and `-V` and hand every other start to the
 * program, as if they had not been there. At this point the dynamic linker is done and the C library has not
 * begun, so nothing but system calls is used (System V ABI for AMD64, 3.4.1: the stack and registers at entry).
 *
 * Built by compile-stub.ts as flat bytes that run at any address: no relocations, no data that is written.
 * VERSION_ANSWER is the whole answer, with its newline. `cordon_next` is the end of these bytes, where put-stub.ts
 * writes the jump to the program.
 */

#define SYS_WRITE 1
#define SYS_EXIT_GROUP 231
#define STANDARD_OUTPUT 1
#define INTERRUPTED (-4) /* -EINTR */

/* Ten words, so that the stack stays aligned for the call. Of the registers that a C function may change rdx
 * matters most: it holds what the dynamic linker wants called at exit. */
__asm__(".section .text.entry, \"ax\", @progbits\n"
        ".globl cordon_entry\n"
        "cordon_entry:\n"
        "  endbr64\n"
        "  pushfq\n"
        "  push %rax\n"
        "  push %rcx\n"
        "  push %rdx\n"
        "  push %rsi\n"
        "  push %rdi\n"
        "  push %r8\n"
        "  push %r9\n"
        "  push %r10\n"
        "  push %r11\n"
        "  lea 80(%rsp), %rdi\n"
        "  call answer_version\n"
        "  pop %r11\n"
        "  pop %r10\n"
        "  pop %r9\n"
        "  pop %r8\n"
        "  pop %rdi\n"
        "  pop %rsi\n"
        "  pop %rdx\n"
        "  pop %rcx\n"
        "  pop %rax\n"
        "  popfq\n"
        "  jmp cordon_next\n"
        ".text\n");

static const char answer[] = VERSION_ANSWER;

static long system_call(long number, long first, long second, long third) {
  long result;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(first), "S"(second), "d"(third)
                   : "rcx", "r11", "memory");
  return result;
}

static int equal(const char *left, const char *right) {
  for (; *left == *right; left++, right++) {
    if (*left == '\0') return 1;
  }
  return 0;
}

static int write_answer(void) {
  unsigned long written = 0;
  while (written < sizeof answer - 1) {
    long result = system_call(SYS_WRITE, STANDARD_OUTPUT, (long)(answer + written), sizeof answer - 1 - written);
    if (result == INTERRUPTED) continue;
    if (result <= 0) return 1;
    written += result;
  }
  return 0;
}

/* `stack`: the number of arguments, then their addresses. */
__attribute__((used)) void answer_version(const unsigned long *stack) {
  if (stack[0] != 2) return;
  const char *option = (const char *)stack[2];
  if (!equal(option, "--version") && !equal(option, "-V")) return;
  system_call(SYS_EXIT_GROUP, write_answer(), 0, 0);
  __builtin_unreachable();
}
