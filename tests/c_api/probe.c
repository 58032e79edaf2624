/* The C library and what tests ask of its inside: which calls it makes, with which arguments. */
#include "fq_tvm.c"

#include <stdio.h>
#include <string.h>

static char *recorded;
static size_t room;

static void note(const char *text) {
  size_t length = strlen(text);
  if (length < room) {
    memcpy(recorded, text, length + 1);
    recorded += length;
    room -= length;
  }
}

/* In the place of a kernel's function: writes down the numbers among its arguments. */
static int record(void *self, const Any *arguments, int32_t count, Any *result) {
  char text[64];
  (void)self, (void)result;
  for (int i = 0; i < count; i++) {
    if (arguments[i].type == 7) continue;
    if (arguments[i].type == 1) snprintf(text, sizeof text, " %lld", (long long)arguments[i].value.integer);
    else snprintf(text, sizeof text, " %.17g", arguments[i].value.real);
    note(text);
  }
  return 0;
}

enum { MASKED, UNMASKED, GRADIENT };

int probe(const fq_tvm_tensor *tensors, int32_t axis, int64_t quant_min, int64_t quant_max, int32_t formula, int32_t kind,
          char *text, size_t size) {
  Plan plan = {0};
  const fq_tvm_tensor *mask = kind == UNMASKED ? 0 : tensors + 4;
  Arguments arguments = {tensors, tensors + 1, tensors + 2, tensors + 3, mask, axis, quant_min, quant_max, formula};
  int status = kind == GRADIENT ? prepare_gradient(&arguments, &plan) : prepare(&arguments, &plan);
  if (status != FQ_TVM_OK) return status;
  recorded = text;
  room = size;
  char line[64];
  snprintf(line, sizeof line, "%s %zu", plan.kernel ? plan.kernel->name : "none", plan.workspace_size);
  note(line);
  for (int i = 0; i < plan.count; i++) {
    const Kernel *k = plan.kernel;
    const Form *form = plan.calls[i].form;
    const char *name = form == &k->run ? "run" : form == &k->long_ ? "long" : form == &k->blocked ? "blocked"
                     : form == &k->direct ? "direct" : "expand";
    snprintf(line, sizeof line, "\n%s %d %d", name, plan.calls[i].serial, plan.calls[i].threaded);
    note(line);
    form->call(record, &plan.values);
  }
  return status;
}
