/* Writes what a program is given: arguments, environment, and what the kernel says (auxv) where it is the same in
 * each run. Its library says something at exit, which it does only when rdx came through. */
#include <elf.h>
#include <stdio.h>

extern char **environ;

int main(int count, char **arguments) {
  printf("%d\n", count);
  for (int i = 0; i < count; i++) printf("argument %s\n", arguments[i]);
  printf("end %d\n", arguments[count] == NULL);
  char **variable = environ;
  for (; *variable; variable++) printf("variable %s\n", *variable);
  for (Elf64_auxv_t *entry = (Elf64_auxv_t *)(variable + 1); entry->a_type != AT_NULL; entry++) {
    unsigned long type = entry->a_type;
    int isText = type == AT_EXECFN || type == AT_PLATFORM;
    int moves = type == AT_ENTRY || type == AT_PHDR || type == AT_BASE || type == AT_SYSINFO_EHDR || type == AT_RANDOM;
    if (isText) printf("%lu %s\n", type, (char *)entry->a_un.a_val);
    else printf("%lu %lx\n", type, moves ? 0 : entry->a_un.a_val);
  }
  return 7;
}
