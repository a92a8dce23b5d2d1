#include <stdio.h>

__attribute__((destructor)) static void say_farewell(void) { puts("farewell"); }

/* Something to need the library for. */
int farewell_is_linked = 1;
