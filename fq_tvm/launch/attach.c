/* Linked to each kernel as it is loaded: sets the pointer by which the kernel launches.  See threads.c. */
#include <stdint.h>

typedef struct { int32_t type_index, padding; int64_t value; } Any; /* TVMFFIAny */

/* Each parallel kernel has one, too, which tvm-ffi has filled with TVM's own. */
__attribute__((weak)) void *__TVMBackendParallelLaunch;

/* (the address of a launcher) */
int __tvm_ffi_launch_through(void *self, const Any *args, int32_t count, Any *result) {
  (void)self, (void)count;
  __TVMBackendParallelLaunch = (void *)(intptr_t)args[0].value;
  result->type_index = result->padding = 0;
  result->value = 0;
  return 0;
}
