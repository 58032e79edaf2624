/* Several launches by one call from Python, where each costs the interpreter's way there.
 *
 * Everything about them that stays the same is remembered: functions, numbers, and what tensors have to be for that.
 * A call checks the tensors first, so that no other memory is touched than that which was looked at. */
#include <stdint.h>

typedef struct {              /* DLTensor of dlpack.h */
  char *data;
  int32_t device_type, device_id, ndim;
  uint32_t dtype;             /* code, bits and lanes, one after another */
  const int64_t *shape, *strides;
  uint64_t byte_offset;
} Tensor;

typedef struct { uint64_t references; int32_t type_index, padding; void *deleter; Tensor tensor; } Object; /* TVMFFIObject */
typedef struct {              /* TVMFFIAny */
  int32_t type_index, padding;
  union { int64_t value; void *pointer; Tensor *tensor; Object *object; };
} Any;
enum { INTEGER = 1, POINTER = 4, TENSOR = 7, OBJECT = 70 }; /* its type indices, the last of a tensor that is an object */

extern int TVMFFIFunctionCall(void *function, Any *args, int32_t count, Any *result);

/* The structures below are those of sequence.py, and so are these numbers. */
enum { DONE, CHANGED, STOPPED };
enum { CONSTANT, GIVEN, SCRATCH };
enum { ANY, OFF, ON };
enum { MOST_ARGUMENTS = 48 };

typedef struct {
  const char *data;           /* where it lies; null for anywhere */
  uint32_t dtype;
  int32_t ndim;
  const int64_t *shape, *strides;
  int64_t says;               /* what its one element, an integer, says */
} Expected;

typedef struct {
  int64_t kind, number;       /* which of the given, or bytes into the scratch memory */
  Any constant;
} Argument;

typedef struct {
  void *function;
  const Argument *arguments;
  int64_t count;
  int64_t proceed;            /* bytes into the scratch memory of an int32 that is 0 where nothing more is to be done, or -1 */
} Step;

typedef struct {
  const Expected *expected;
  const Step *steps;
  int64_t tensors, count;
} Sequence;

static int is_as_expected(const Any *given, const Expected *expected) {
  if (given->type_index != TENSOR && given->type_index != OBJECT) return 0;
  const Tensor *tensor = given->type_index == TENSOR ? given->tensor : &given->object->tensor;
  const char *data = tensor->data + tensor->byte_offset;
  if (!tensor->data || (expected->data && data != expected->data)) return 0;
  if (tensor->device_type != 1 || tensor->dtype != expected->dtype || tensor->ndim != expected->ndim) return 0;
  for (int i = 0; i < tensor->ndim; i++) {
    if (tensor->shape[i] != expected->shape[i]) return 0;
    if (tensor->shape[i] != 1 && tensor->strides[i] != expected->strides[i]) return 0;
  }
  if (expected->says == ANY) return 1;
  int on = 0;
  for (uint32_t i = 0; i < (tensor->dtype >> 8 & 255) / 8; i++) on |= data[i];
  return !on == (expected->says == OFF);
}

/* (the address of a Sequence, a tensor of scratch memory, the tensors...) -> DONE; CHANGED, with nothing written, where a tensor is
 * not as it has to be; STOPPED after a step that said so. */
int __tvm_ffi_sequence(void *self, const Any *args, int32_t count, Any *result) {
  (void)self;
  const Sequence *sequence = args[0].pointer;
  char *scratch = args[1].tensor->data;
  const Any *given = args + 2;
  result->type_index = INTEGER;
  result->padding = 0;
  result->value = CHANGED;
  if (count != 2 + sequence->tensors) return 0;
  for (int i = 0; i < sequence->tensors; i++)
    if (!is_as_expected(&given[i], &sequence->expected[i])) return 0;
  for (const Step *step = sequence->steps; step < sequence->steps + sequence->count; step++) {
    Any arguments[MOST_ARGUMENTS], none = {0, 0, {0}};
    Tensor places[MOST_ARGUMENTS]; /* of which kernels read where they lie */
    for (int i = 0; i < step->count; i++) {
      const Argument *argument = &step->arguments[i];
      arguments[i] = argument->kind == GIVEN ? given[argument->number] : argument->constant;
      if (argument->kind != SCRATCH) continue;
      places[i] = (Tensor){scratch + argument->number, 1, 0, 0, 0, 0, 0, 0};
      arguments[i] = (Any){POINTER, 0, {.pointer = &places[i]}};
    }
    int status = TVMFFIFunctionCall(step->function, arguments, (int32_t)step->count, &none);
    if (status) return status;
    result->value = STOPPED;
    if (step->proceed >= 0 && !*(const int32_t *)(scratch + step->proceed)) return 0;
  }
  result->value = DONE;
  return 0;
}
