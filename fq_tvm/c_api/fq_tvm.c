/* From tensors to calls of the kernels in the objects beside this file: checks, loops, plan.  See fq_tvm.h.
 *
 * @ABOUT@ */
#include "fq_tvm.h"

#include <math.h>

enum { MAX_RANK = FQ_TVM_MAX_RANK };

/* --- What kernels are called with ----------------------------------------------------------------------------------- */

/* TVM's layouts of a tensor and of an argument.  Of a tensor the address alone is read: data and byte_offset. */
typedef struct { const void *data; int32_t device[2], ndim, dtype; int64_t *shape, *strides; uint64_t byte_offset; } Address;
typedef struct { int32_t type, padding; union { int64_t integer; double real; Address *address; } value; } Any;

#define ADDRESS(name) {7, 0, {.address = &(Address){.data = values->name}}}
#define REAL(name) {3, 0, {.real = values->name}}
#define INTEGER(name) {1, 0, {.integer = values->name}}

typedef int (*Function)(void *self, const Any *arguments, int32_t count, Any *result);

/* All that a kernel may ask for, by the names of its contract: addresses, scalars, integers. */
typedef struct {
  const void *self, *scale, *zero_point, *out, *mask, *workspace;
  double quant_min, quant_max, least, greatest;
  int64_t outer, channels, inner, copies, first, runs, run, tail, blocks, scale_stride, zero_point_stride;
  int64_t n[MAX_RANK], self_stride[MAX_RANK], out_stride[MAX_RANK], mask_stride[MAX_RANK];
} Values;

/* One computation, and the functions that are made of it. */
typedef struct {
  int (*call)(Function function, const Values *values);
  Function variants[3];
} Form;

enum { SERIAL, PARALLEL, NONTEMPORAL };    /* variants of a form */
enum { EXPAND_CHANNELS, EXPAND_INNER };    /* of an expansion */
enum { ROWS, LANES, STRIDED_ROWS, STRIDED_LANES }; /* classes: how a kernel walks memory */

typedef struct {
  const char *name;
  int gradient, iteration, dtype, scale_dtype, zero_point_dtype, out_dtype, wide;
  int formula, masked;                     /* with or without FQ_TVM_ZERO_POINT_BEFORE, whatever the dtype; if there is a mask */
  int64_t most_bytes;                      /* that move where this schedule is the best one */
  int64_t element_bytes;                   /* that move for each element */
  int nontemporal;                         /* whether there is code that writes past the caches */
  int vectors, flag;                       /* of the workspace */
  int64_t nontemporal_row;                 /* the shortest row that gains from it */
  int64_t tile, rows, run_length, parallel_from, stream_from;
  Form run, long_, blocked, direct, expand;
} Kernel;

#ifdef __GNUC__
#define PRIVATE __attribute__((visibility("hidden")))
#else
#define PRIVATE
#endif

@GENERATED@
/* --- Threads -------------------------------------------------------------------------------------------------------- */

typedef struct { void *sync; int32_t tasks; } Group;
typedef int (*Task)(int number, Group *group, void *closure);

/* The hook of the call that this thread is in: kernels have no argument for it. */
static _Thread_local const fq_tvm_threads *hook;

typedef struct { Task task; void *closure; int32_t tasks; } Job;

static int do_task(void *data, int32_t number) {
  const Job *job = data;
  Group group = {0, job->tasks};
  return job->task(number, &group, job->closure);
}

static int launch(Task task, void *closure, int tasks) {
  (void)tasks; /* kernels leave it to us, and divide their work by what they are given */
  Job job = {task, closure, hook ? hook->tasks : 1};
  return hook ? hook->run(hook->context, job.tasks, do_task, &job) : do_task(&job, 0);
}

/* Kernels launch through it. */
PRIVATE int (*fq_tvm_launcher)(Task, void *, int) = launch;

/* --- Loops: shapes, strides and an axis ----------------------------------------------------------------------------- */

enum { SELF, OUT, MASK };

typedef struct { int64_t extent, strides[3]; int channel; } Loop;

/* Loops of the channel, of its outside and of its inside; strides of a contiguous class are not used. */
typedef struct {
  int iteration, outer;                    /* the class; how many loops are outside the channel */
  int64_t channels, inner;
  Loop loops[MAX_RANK + 1];                /* outer, channel, inner */
} Layout;

static int64_t magnitude(int64_t value) { return value < 0 ? -value : value; }

/* Whether a loop lies outside another: out decides, as a write costs twice a read, then mask. */
static int outside(const Loop *a, const Loop *b) {
  static const int order[] = {OUT, MASK, SELF};
  for (int i = 0; i < 3; i++) {
    int64_t of_a = magnitude(a->strides[order[i]]), of_b = magnitude(b->strides[order[i]]);
    if (of_a != of_b) return of_a > of_b;
  }
  return 0;
}

static int continues(const Loop *loop, const Loop *inside) {
  for (int t = 0; t < 3; t++)
    if (loop->strides[t] != inside->strides[t] * inside->extent) return 0;
  return !loop->channel && !inside->channel;
}

static int has_strides(const Loop *loop, int64_t stride) {
  return loop->extent == 1 || (loop->strides[0] == stride && loop->strides[1] == stride && loop->strides[2] == stride);
}

static int is_rows(int64_t channels, int64_t inner) { return inner >= ROWS_MIN_INNER || channels == 1; }

/* Axis counts from the front; -1 where all elements share their parameters. */
static Layout arrange(const fq_tvm_tensor *self, const fq_tvm_tensor *out, const fq_tvm_tensor *mask, int axis) {
  Loop loops[MAX_RANK], merged[MAX_RANK];
  Layout layout = {0};
  int count = 0, made = 0, at = 0;
  for (int d = 0; d < self->rank; d++) {
    if (self->shape[d] == 1) continue;
    Loop loop = {self->shape[d], {self->strides[d], out->strides[d], mask->strides[d]}, d == axis};
    int place = count++;
    for (; place && outside(&loop, &loops[place - 1]); place--) loops[place] = loops[place - 1];
    loops[place] = loop;
  }
  for (int i = 0; i < count; i++) {
    if (made && continues(&merged[made - 1], &loops[i])) loops[i].extent *= merged[--made].extent;
    merged[made++] = loops[i];
  }
  while (at < made && !merged[at].channel) at++;
  if (at == made) { /* one channel: it may stand anywhere; outside the last loop */
    at = made ? made - 1 : 0;
    if (made < MAX_RANK) {
      if (made) merged[made] = merged[made - 1];
      merged[at] = (Loop){1, {0}, 1};
      made++;
    } else { /* no loop is left for it: another one does, along which the parameters have no stride */
      merged[--at].channel = 1;
    }
  }
  int inside = made - at - 1;
  layout.channels = merged[at].extent;
  if (at <= 1 && inside <= 1) {
    layout.inner = inside ? merged[at + 1].extent : 1;
    if ((!at || has_strides(&merged[0], layout.channels * layout.inner)) && has_strides(&merged[at], layout.inner) &&
        (!inside || has_strides(&merged[at + 1], 1))) {
      layout.iteration = is_rows(layout.channels, layout.inner) ? ROWS : LANES;
      layout.outer = 1;
      layout.loops[0].extent = at ? merged[0].extent : 1;
      return layout;
    }
  }
  int lanes = !inside && layout.channels > 1;
  layout.iteration = lanes ? STRIDED_LANES : STRIDED_ROWS;
  layout.inner = inside ? merged[made - 1].extent : 1;
  for (int i = 0; i < made - (inside > 0); i++)
    if (i != at) layout.loops[layout.outer++] = merged[i];
  layout.loops[layout.outer] = merged[at];
  layout.loops[layout.outer + 1] = inside ? merged[made - 1] : (Loop){1, {0}, 0};
  return layout;
}

/* --- Plan: which functions, with which numbers ---------------------------------------------------------------------- */

/* Bytes from the first element's begin back to the first one in memory, and on to the end of the last one. */
typedef struct { int64_t before, after; } Span;

typedef struct { const Form *form; int serial, threaded; } Call;

typedef struct {
  const Kernel *kernel;
  int count;
  Call calls[3];
  Values values;
  size_t workspace_size;
  Span spans[5];                           /* of self, scale, zero_point, out and mask */
} Plan;

static int64_t gcd(int64_t a, int64_t b) { return b ? gcd(b, a % b) : a; }

/* How many outer rows make a run: enough to fill it, few enough that expanding costs little of the whole, and a multiple
 * that fills lines unless the run would be much longer for that. */
static int64_t copies_of(int64_t outer, int64_t period, int64_t run, int64_t multiple) {
  int64_t most = outer >= 64 ? outer / 64 : outer, copies = run / period < most ? run / period : most;
  if (copies < 1) copies = 1;
  int64_t unit = multiple / gcd(multiple, period), whole = (copies + unit - 1) / unit * unit;
  return whole <= outer && period <= LONGEST_RUN_ELEMENTS / whole ? whole : copies;
}

/* Extents and strides by name, filled with loops of one iteration to as many as there are. */
static void set_loops(Values *values, const Layout *layout) {
  int inside = layout->iteration == STRIDED_LANES ? 1 : 2, first = 0;
  /* The first outer loop is spread over threads, so it has to be one with iterations to spread. */
  if (layout->outer && layout->loops[0].extent < 16)
    for (int i = 1; i < layout->outer; i++)
      if (layout->loops[i].extent > layout->loops[first].extent) first = i;
  for (int place = 0; place < MAX_RANK; place++) {
    int from_end = MAX_RANK - place;
    const Loop none = {1, {0}, 0}, *loop = &none;
    if (from_end <= inside) loop = &layout->loops[layout->outer + inside - from_end];
    else if (place == 0 && layout->outer) loop = &layout->loops[first];
    else if (place < layout->outer) loop = &layout->loops[place <= first ? place - 1 : place];
    values->n[place] = loop->extent;
    values->self_stride[place] = loop->strides[SELF];
    values->out_stride[place] = loop->strides[OUT];
    values->mask_stride[place] = loop->strides[MASK];
  }
}

static void add(Plan *plan, const Form *form, int64_t row, int64_t elements, int past_caches) {
  int whole = row % LINE_ELEMENTS == 0 || (!plan->kernel->vectors && row >= plan->kernel->nontemporal_row);
  int threaded = past_caches && whole ? NONTEMPORAL : PARALLEL;
  if (elements < plan->kernel->parallel_from) threaded = SERIAL;
  plan->calls[plan->count++] = (Call){form, SERIAL, threaded};
}

/* A plan has its kernel and the values that the layout does not tell. */
static void make_plan(Plan *plan, const Layout *layout, int64_t size) {
  const Kernel *kernel = plan->kernel;
  Values *v = &plan->values;
  int strided = layout->iteration == STRIDED_ROWS || layout->iteration == STRIDED_LANES;
  int past_caches = kernel->nontemporal && size * kernel->element_bytes >= kernel->stream_from;
  v->outer = 1;
  for (int i = 0; i < layout->outer; i++) v->outer *= layout->loops[i].extent;
  v->channels = layout->channels;
  v->inner = layout->inner;
  if (strided) set_loops(v, layout);
  if (!kernel->vectors) {
    int longer = !strided && kernel->long_.call && v->inner >= kernel->tile / 4;
    add(plan, longer ? &kernel->long_ : &kernel->run, v->inner, size, past_caches);
    return;
  }
  if (!strided && v->inner == 1 && v->outer <= DIRECT_OUTER) {
    add(plan, &kernel->direct, v->channels, size, past_caches);
    return;
  }
  int64_t period = v->channels * v->inner;
  v->copies = strided ? 1 : copies_of(v->outer, period, kernel->run_length, past_caches ? LINE_ELEMENTS : 1);
  v->run = v->copies * period;
  int innermost = v->inner >= EXPAND_INNER_FROM ? EXPAND_INNER : EXPAND_CHANNELS;
  plan->calls[plan->count++] = (Call){&kernel->expand, innermost, innermost};
  plan->workspace_size = 4 * ((size_t)kernel->vectors * (size_t)v->run + (size_t)kernel->flag);
  if (strided) {
    add(plan, &kernel->run, v->run, size, past_caches);
    return;
  }
  int64_t runs = v->outer / v->copies;
  v->tail = v->outer % v->copies * period;
  v->blocks = kernel->rows > 1 && v->run > CACHED_RUN_ELEMENTS ? runs / kernel->rows : 0;
  v->first = v->blocks * kernel->rows * v->run;
  v->runs = runs - v->blocks * kernel->rows;
  if (v->blocks) add(plan, &kernel->blocked, v->run, v->first, past_caches);
  if (v->first < size) add(plan, &kernel->run, v->run, size - v->first, past_caches);
}

static const Kernel *find_kernel(const Kernel *like, int64_t size) {
  for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++) {
    const Kernel *k = &kernels[i];
    if (k->gradient == like->gradient && k->formula == like->formula && k->masked == like->masked &&
        k->iteration == like->iteration && k->dtype == like->dtype && k->scale_dtype == like->scale_dtype &&
        k->zero_point_dtype == like->zero_point_dtype && k->out_dtype == like->out_dtype && k->wide == like->wide &&
        size <= k->most_bytes / k->element_bytes)
      return k;
  }
  return 0;
}

/* --- Checks, in the order null, dtype, shape, range, overlap --------------------------------------------------------- */

static int is_float(int dtype) { return dtype == FQ_TVM_FLOAT32 || dtype == FQ_TVM_FLOAT16 || dtype == FQ_TVM_BFLOAT16; }

static int64_t item_size(int dtype) {
  return dtype == FQ_TVM_BOOL ? 1 : dtype == FQ_TVM_FLOAT32 || dtype == FQ_TVM_INT32 ? 4 : 2;
}

static int is_empty(const fq_tvm_tensor *tensor) {
  for (int d = 0; d < tensor->rank && d < MAX_RANK; d++)
    if (tensor->shape[d] == 0) return 1;
  return 0;
}

/* Whether ranks, extents and strides are such that bytes can be counted; all products of them are far from overflow then. */
static int find_span(const fq_tvm_tensor *tensor, Span *span) {
  const int64_t most = INT64_MAX / 16, item = item_size(tensor->dtype);
  int64_t bytes = item, reach;
  *span = (Span){0, item};
  if (tensor->rank < 0 || tensor->rank > MAX_RANK) return 0;
  for (int d = 0; d < tensor->rank; d++)
    if (tensor->shape[d] < 0) return 0;
  if (is_empty(tensor)) return 1;
  for (int d = 0; d < tensor->rank; d++) {
    if (__builtin_mul_overflow(bytes, tensor->shape[d], &bytes) || bytes > most) return 0;
    if (tensor->shape[d] == 1) continue;
    if (__builtin_mul_overflow(tensor->shape[d] - 1, tensor->strides[d], &reach) || reach > most || reach < -most) return 0;
    int64_t *end = reach < 0 ? &span->before : &span->after;
    *end += magnitude(reach) * item;
    if (*end > most) return 0;
  }
  return 1;
}

static int is_shaped_like(const fq_tvm_tensor *tensor, const fq_tvm_tensor *other) {
  if (tensor->rank != other->rank) return 0;
  for (int d = 0; d < tensor->rank; d++)
    if (tensor->shape[d] != other->shape[d]) return 0;
  return 1;
}

static int is_vector(const fq_tvm_tensor *tensor, int32_t axis, int64_t channels) {
  if (axis == FQ_TVM_PER_TENSOR) return tensor->rank == 0 || (tensor->rank == 1 && tensor->shape[0] == 1);
  return tensor->rank == 1 && tensor->shape[0] == channels;
}

static int overlaps(const fq_tvm_tensor *a, const Span *of_a, const fq_tvm_tensor *b, const Span *of_b) {
  uintptr_t at_a = (uintptr_t)a->data, at_b = (uintptr_t)b->data;
  return at_a - (uintptr_t)of_a->before < at_b + (uintptr_t)of_b->after &&
         at_b - (uintptr_t)of_b->before < at_a + (uintptr_t)of_a->after;
}

static int is_same(const fq_tvm_tensor *a, const fq_tvm_tensor *b) {
  if (a->data != b->data || item_size(a->dtype) != item_size(b->dtype) || !is_shaped_like(a, b)) return 0;
  for (int d = 0; d < a->rank; d++)
    if (a->shape[d] != 1 && a->strides[d] != b->strides[d]) return 0;
  return 1;
}

/* Whether each loop steps over all that lies within it, the loops ordered by their strides. */
static int overlaps_itself(const fq_tvm_tensor *tensor) {
  int64_t reach = 0;
  for (int used = 0; used < 1 << MAX_RANK;) {
    int next = -1;
    for (int d = 0; d < tensor->rank; d++)
      if (!(used >> d & 1) && tensor->shape[d] > 1 &&
          (next < 0 || magnitude(tensor->strides[d]) < magnitude(tensor->strides[next])))
        next = d;
    if (next < 0) return 0;
    if (magnitude(tensor->strides[next]) <= reach) return 1;
    reach += magnitude(tensor->strides[next]) * (tensor->shape[next] - 1);
    used |= 1 << next;
  }
  return 0;
}

static int has_cpu(void) {
@CPU@}

enum { TENSORS = 5 };

typedef struct {
  const fq_tvm_tensor *self, *scale, *zero_point, *out, *mask; /* of a gradient self, out and mask; mask null for none */
  int32_t axis;
  int64_t quant_min, quant_max;
  int32_t formula;
} Arguments;

static int64_t size_of(const fq_tvm_tensor *tensor) {
  int64_t size = 1;
  for (int d = 0; d < tensor->rank; d++) size *= tensor->shape[d];
  return size;
}

/* As fq_tvm_formula; what is no formula stays none, and no kernel has it. */
static int formula_of(const Arguments *a) {
  int after = FQ_TVM_ZERO_POINT_AFTER, before = FQ_TVM_ZERO_POINT_BEFORE;
  if (a->formula & after) return a->formula & before ? a->formula : a->formula & ~after;
  return a->zero_point->dtype == FQ_TVM_INT32 ? a->formula : a->formula | before;
}

/* Check all but addresses and make the plan; the plan of an empty tensor has no calls. */
static int prepare(const Arguments *a, Plan *plan) {
  const fq_tvm_tensor *all[] = {a->self, a->scale, a->zero_point, a->out, a->mask}, *self = a->self;
  int count = a->mask ? TENSORS : TENSORS - 1;
  for (int i = 0; i < count; i++)
    if (!all[i]) return FQ_TVM_ERROR_NULL;
  if (!is_float(self->dtype) || !is_float(a->scale->dtype) || !is_float(a->out->dtype) ||
      (a->mask && a->mask->dtype != FQ_TVM_BOOL) || (a->zero_point->dtype != FQ_TVM_INT32 && !is_float(a->zero_point->dtype)))
    return FQ_TVM_ERROR_DTYPE;
  for (int i = 0; i < count; i++)
    if (!find_span(all[i], &plan->spans[i])) return FQ_TVM_ERROR_SHAPE;
  int per_tensor = a->axis == FQ_TVM_PER_TENSOR, rank = self->rank ? self->rank : 1;
  int32_t axis = a->axis < 0 && !per_tensor ? a->axis + rank : a->axis;
  if (!per_tensor && (axis < 0 || axis >= rank)) return FQ_TVM_ERROR_SHAPE;
  int64_t channels = per_tensor || !self->rank ? 1 : self->shape[axis];
  if (!is_shaped_like(a->out, self) || (a->mask && !is_shaped_like(a->mask, self)) || !is_vector(a->scale, a->axis, channels) ||
      !is_vector(a->zero_point, a->axis, channels))
    return FQ_TVM_ERROR_SHAPE;
  if (a->quant_min > a->quant_max) return FQ_TVM_ERROR_RANGE;
  if (is_empty(self)) return FQ_TVM_OK;

  int64_t size = size_of(self);
  Layout layout = arrange(self, a->out, a->mask ? a->mask : a->out, per_tensor ? -1 : axis);
  int wide = a->quant_min < -NARROW_LIMIT || a->quant_min > NARROW_LIMIT || a->quant_max < -NARROW_LIMIT ||
             a->quant_max > NARROW_LIMIT;
  Kernel like = {.iteration = layout.iteration, .dtype = self->dtype, .scale_dtype = a->scale->dtype,
                 .zero_point_dtype = a->zero_point->dtype, .out_dtype = a->out->dtype, .wide = wide,
                 .formula = formula_of(a), .masked = a->mask != 0};
  if (!(plan->kernel = find_kernel(&like, size))) return FQ_TVM_ERROR_KERNEL;
  if (!has_cpu()) return FQ_TVM_ERROR_CPU;
  Values *v = &plan->values;
  v->quant_min = (double)a->quant_min;
  v->quant_max = (double)a->quant_max;
  /* The outermost doubles inside the range: a bound that is none was rounded, perhaps to the outside, where no int64 is. */
  int below = v->quant_min < 0x1p63 && (int64_t)v->quant_min < a->quant_min;
  int above = v->quant_max >= 0x1p63 || (int64_t)v->quant_max > a->quant_max;
  v->least = below ? nextafter(v->quant_min, INFINITY) : v->quant_min;
  v->greatest = above ? nextafter(v->quant_max, -INFINITY) : v->quant_max;
  v->scale_stride = per_tensor ? 0 : a->scale->strides[0];
  v->zero_point_stride = per_tensor ? 0 : a->zero_point->strides[0];
  make_plan(plan, &layout, size);
  return FQ_TVM_OK;
}

/* The same of a gradient, which has no channels. */
static int prepare_gradient(const Arguments *a, Plan *plan) {
  const fq_tvm_tensor *all[] = {a->self, 0, 0, a->out, a->mask}, *self = a->self;
  if (!self || !a->out || !a->mask) return FQ_TVM_ERROR_NULL;
  if (!is_float(self->dtype) || a->out->dtype != self->dtype || a->mask->dtype != FQ_TVM_BOOL) return FQ_TVM_ERROR_DTYPE;
  for (int i = 0; i < TENSORS; i++)
    if (all[i] && !find_span(all[i], &plan->spans[i])) return FQ_TVM_ERROR_SHAPE;
  if (!is_shaped_like(a->out, self) || !is_shaped_like(a->mask, self)) return FQ_TVM_ERROR_SHAPE;
  if (is_empty(self)) return FQ_TVM_OK;
  Layout layout = arrange(self, a->out, a->mask, -1);
  Kernel like = {.gradient = 1, .iteration = layout.iteration, .dtype = self->dtype, .out_dtype = self->dtype, .masked = 1};
  if (!(plan->kernel = find_kernel(&like, size_of(self)))) return FQ_TVM_ERROR_KERNEL;
  if (!has_cpu()) return FQ_TVM_ERROR_CPU;
  make_plan(plan, &layout, size_of(self));
  return FQ_TVM_OK;
}

/* Whether a tensor or a function that has to be there is null; whole tensors that are not there are no operands. */
static int has_null(const Arguments *a, const fq_tvm_threads *threads) {
  const fq_tvm_tensor *all[] = {a->self, a->scale, a->zero_point, a->out, a->mask};
  for (int i = 0; i < TENSORS; i++)
    if (all[i] && !all[i]->data && !is_empty(all[i])) return 1;
  return threads && !threads->run;
}

/* Make the calls of a plan, after the checks that need addresses. */
static int carry_out(const Arguments *a, Plan *plan, void *workspace, size_t workspace_size, const fq_tvm_threads *threads) {
  const fq_tvm_tensor *all[] = {a->self, a->scale, a->zero_point, a->out, a->mask};
  if (threads && threads->tasks < 1) return FQ_TVM_ERROR_RANGE;
  if (!plan->count) return FQ_TVM_OK;
  int results = plan->kernel->gradient || !a->mask ? 1 : 2; /* out, and then mask */
  for (int result = 3; result < 3 + results; result++)
    if (overlaps_itself(all[result])) return FQ_TVM_ERROR_OVERLAP;
  for (int result = 3; result < 3 + results; result++)
    for (int i = 0; i < TENSORS; i++) {
      if (i == result || !all[i] || !overlaps(all[i], &plan->spans[i], all[result], &plan->spans[result])) continue;
      if (i >= 3 || !is_same(all[i], all[result])) return FQ_TVM_ERROR_OVERLAP;
    }
  if (plan->workspace_size && !workspace) return FQ_TVM_ERROR_NULL;
  if (workspace_size < plan->workspace_size) return FQ_TVM_ERROR_WORKSPACE;

  const void **places[] = {&plan->values.self, &plan->values.scale, &plan->values.zero_point, &plan->values.out,
                           &plan->values.mask};
  for (int i = 0; i < TENSORS; i++)
    if (all[i]) *places[i] = all[i]->data;
  plan->values.workspace = workspace;
  const fq_tvm_threads *outer = hook; /* of a call that a thread of a hook is in while it waits */
  hook = threads;
  int failed = 0;
  for (int i = 0; i < plan->count && !failed; i++) {
    const Call *call = &plan->calls[i];
    /* Without threads, too, large results go past the caches. */
    int variant = threads || call->threaded == NONTEMPORAL ? call->threaded : call->serial;
    failed = call->form->call(call->form->variants[variant], &plan->values);
  }
  hook = outer;
  return failed ? FQ_TVM_ERROR_FAILED : FQ_TVM_OK;
}

/* --- The functions of fq_tvm.h -------------------------------------------------------------------------------------- */

int fq_tvm_workspace_size_by(int32_t formula, const fq_tvm_tensor *self, const fq_tvm_tensor *scale,
                             const fq_tvm_tensor *zero_point, int32_t axis, int64_t quant_min, int64_t quant_max,
                             const fq_tvm_tensor *out, const fq_tvm_tensor *mask, size_t *size) {
  Plan plan = {0};
  if (!size) return FQ_TVM_ERROR_NULL;
  int status = prepare(&(Arguments){self, scale, zero_point, out, mask, axis, quant_min, quant_max, formula}, &plan);
  if (status == FQ_TVM_OK) *size = plan.workspace_size;
  return status;
}

int fq_tvm_workspace_size(const fq_tvm_tensor *self, const fq_tvm_tensor *scale, const fq_tvm_tensor *zero_point,
                          int32_t axis, int64_t quant_min, int64_t quant_max, const fq_tvm_tensor *out,
                          const fq_tvm_tensor *mask, size_t *size) {
  return fq_tvm_workspace_size_by(0, self, scale, zero_point, axis, quant_min, quant_max, out, mask, size);
}

int fq_tvm_fake_quantize_by(int32_t formula, const fq_tvm_tensor *self, const fq_tvm_tensor *scale,
                            const fq_tvm_tensor *zero_point, int32_t axis, int64_t quant_min, int64_t quant_max,
                            const fq_tvm_tensor *out, const fq_tvm_tensor *mask, void *workspace, size_t workspace_size,
                            const fq_tvm_threads *threads) {
  Plan plan = {0};
  const Arguments arguments = {self, scale, zero_point, out, mask, axis, quant_min, quant_max, formula};
  if (has_null(&arguments, threads)) return FQ_TVM_ERROR_NULL;
  int status = prepare(&arguments, &plan);
  return status == FQ_TVM_OK ? carry_out(&arguments, &plan, workspace, workspace_size, threads) : status;
}

int fq_tvm_fake_quantize(const fq_tvm_tensor *self, const fq_tvm_tensor *scale, const fq_tvm_tensor *zero_point,
                         int32_t axis, int64_t quant_min, int64_t quant_max, const fq_tvm_tensor *out,
                         const fq_tvm_tensor *mask, void *workspace, size_t workspace_size,
                         const fq_tvm_threads *threads) {
  return fq_tvm_fake_quantize_by(0, self, scale, zero_point, axis, quant_min, quant_max, out, mask, workspace,
                                 workspace_size, threads);
}

int fq_tvm_gradient(const fq_tvm_tensor *grad, const fq_tvm_tensor *mask, const fq_tvm_tensor *out,
                    const fq_tvm_threads *threads) {
  Plan plan = {0};
  const Arguments arguments = {.self = grad, .out = out, .mask = mask};
  if (has_null(&arguments, threads)) return FQ_TVM_ERROR_NULL;
  int status = prepare_gradient(&arguments, &plan);
  return status == FQ_TVM_OK ? carry_out(&arguments, &plan, 0, 0, threads) : status;
}

const char *fq_tvm_message(int status) {
  static const char *const messages[] = {
    "done",
    "a tensor, its memory, the workspace or a function is null",
    "a dtype is not one of the operator's: self, scale and out are floats, zero_point int32 or a float, mask bool; a "
    "gradient's are one float",
    "shapes do not fit: out and mask have self's, scale and zero_point one dimension of self's size along axis",
    "quant_min is above quant_max, or a hook has no tasks",
    "out or mask overlaps itself, the other one, or a part of an input",
    "the workspace is smaller than fq_tvm_workspace_size says",
    "this library has no kernel for these dtypes, range, layout and formula: fq-tvm build --c-api builds what it is asked for",
    "this CPU lacks instructions that the kernels were built with: FQ_TVM_TARGET of fq-tvm build names another one",
    "the thread hook returned an error",
  };
  int known = status >= 0 && status < (int)(sizeof messages / sizeof *messages);
  return known ? messages[status] : "no status of fq_tvm";
}
