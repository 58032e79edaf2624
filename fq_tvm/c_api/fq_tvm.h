/* Fake quantization of tensors, per channel or per tensor, with a mask of what was in range.
 *
 *     q    = rint(self * (1 / scale[c])) + zero_point[c]        float32, every step rounded once
 *     out  = (clip(q, quant_min, quant_max) - zero_point[c]) * scale[c]
 *     mask = quant_min <= q <= quant_max
 *
 * and its gradient, grad * mask, which goes straight through.  Other formulas in use are asked for by their names.
 *
 * @ABOUT@
 * Link fq_tvm.c (C11, GCC or Clang) and the objects beside it into a C or C++ program, with -lm; neither Python nor TVM is
 * needed, at build or at run time.  Results are the same bits for every layout, alignment, number of threads and CPU.
 *
 * Thread safety: there is no state.  Any threads may call at once, on tensors of which they write different ones.  Nothing
 * is allocated, printed or kept, no signal is touched and no thread started.
 *
 * Kernels, as self, scale, zero_point -> out:
@KERNELS@
 *
 * Rows and lanes serve tensors that lie without gaps in one order of dimensions: rows where a channel's elements run on for
 * @ROWS@ or more, lanes elsewhere.  The strided ones serve all others: lanes where the channel is innermost in memory. */
#ifndef FQ_TVM_H
#define FQ_TVM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FQ_TVM_VERSION "@VERSION@"
#define FQ_TVM_MAX_RANK @MAX_RANK@

typedef enum {
  FQ_TVM_FLOAT32,
  FQ_TVM_FLOAT16,  /* IEEE 754 binary16 */
  FQ_TVM_BFLOAT16, /* the upper half of a float32 */
  FQ_TVM_INT32,
  FQ_TVM_BOOL      /* one byte, 0 or 1 */
} fq_tvm_dtype;

/* A view of memory.  The element at index i lies at data + size of an element * (i[0] * strides[0] + ...), at any address. */
typedef struct {
  void *data;                       /* of the element at index 0; no matter where there are no elements */
  int32_t dtype;                    /* fq_tvm_dtype */
  int32_t rank;                     /* number of dimensions, from 0 to FQ_TVM_MAX_RANK */
  int64_t shape[FQ_TVM_MAX_RANK];   /* extents, from 0 up */
  int64_t strides[FQ_TVM_MAX_RANK]; /* in elements; also 0 or negative */
} fq_tvm_tensor;

typedef enum {
  FQ_TVM_OK,
  FQ_TVM_ERROR_NULL,      /* a pointer that has to be there is null */
  FQ_TVM_ERROR_DTYPE,     /* self, scale or out is no float, zero_point neither that nor int32, or mask not bool; a
                             gradient's grad is no float, or out has another dtype */
  FQ_TVM_ERROR_SHAPE,     /* ranks, extents or axis do not fit one another, or an offset is beyond 2^59 bytes */
  FQ_TVM_ERROR_RANGE,     /* quant_min is above quant_max */
  FQ_TVM_ERROR_OVERLAP,   /* out or mask shares memory with itself, with the other, or with an input */
  FQ_TVM_ERROR_WORKSPACE, /* workspace is smaller than fq_tvm_workspace_size says */
  FQ_TVM_ERROR_KERNEL,    /* this library was built without a kernel for these dtypes, range, layout and formula */
  FQ_TVM_ERROR_CPU,       /* this CPU lacks instructions that the kernels were built with */
  FQ_TVM_ERROR_FAILED     /* the thread hook returned an error; out and mask are undefined */
} fq_tvm_status;

/* What differs between the formulas in use, added up; 0 is the one above. */
typedef enum {
  FQ_TVM_DIVISION = 1,          /* self / scale[c], rounded once, in the place of the product with the reciprocal */
  FQ_TVM_ZERO_POINT_BEFORE = 2, /* rint(self * (1 / scale[c]) + zero_point[c]), of integers too */
  FQ_TVM_ZERO_POINT_AFTER = 4,  /* rint(self * (1 / scale[c])) + zero_point[c], of floats too */
  FQ_TVM_KEEP_ZERO_SIGN = 8,    /* a q of -0.0 stays one, and what comes of it */
  FQ_TVM_NAN_QUANT_MAX = 16     /* a NaN gives quant_max */
} fq_tvm_formula;

/* What an axis of a tensor with one scale and one zero point for all its elements is. */
#define FQ_TVM_PER_TENSOR INT32_MIN

/* A thread hook: run has to call task(data, 0) to task(data, tasks - 1), each once, in any threads and any order, and to return
 * after the last of them has: 0, or another number if one of them returned that or could not be run.  Give as many tasks as
 * there are threads or, where these may be late or slow, a few for each. */
typedef struct {
  int (*run)(void *context, int32_t tasks, int (*task)(void *data, int32_t number), void *data);
  void *context;
  int32_t tasks; /* how many a kernel is divided into, from 1 up */
} fq_tvm_threads;

/* Describe a tensor without gaps, in C order. */
static inline fq_tvm_tensor fq_tvm_dense(void *data, fq_tvm_dtype dtype, int32_t rank, const int64_t *shape) {
  fq_tvm_tensor tensor;
  int64_t stride = 1;
  tensor.data = data;
  tensor.dtype = (int32_t)dtype;
  tensor.rank = rank;
  for (int32_t d = FQ_TVM_MAX_RANK - 1; d >= 0; d--) {
    tensor.shape[d] = d < rank ? shape[d] : 1;
    tensor.strides[d] = stride;
    if (tensor.shape[d] > 1 && stride <= INT64_MAX / tensor.shape[d]) stride *= tensor.shape[d];
  }
  return tensor;
}

/* Say how many bytes of workspace a call needs; often 0.  Reads no memory of the tensors, whose data may be null, and so does
 * not look for overlaps.  Returns a fq_tvm_status; size is written if that is FQ_TVM_OK. */
int fq_tvm_workspace_size(const fq_tvm_tensor *self, const fq_tvm_tensor *scale, const fq_tvm_tensor *zero_point,
                          int32_t axis, int64_t quant_min, int64_t quant_max,
                          const fq_tvm_tensor *out, const fq_tvm_tensor *mask, size_t *size);

/* Fake-quantize self into out and mask.
 *
 *   self, out, mask    of one shape, up to FQ_TVM_MAX_RANK dimensions, any strides; out may be of another float, and mask
 *                      null: then none is computed, which takes kernels of their own
 *   scale, zero_point  one dimension, any stride, as long as self along axis; per tensor one element and up to one dimension
 *   axis               the dimension of the channels; negative counts from the end, or FQ_TVM_PER_TENSOR
 *   quant_min, _max    the range of integers, any
 *   workspace          bytes at any address, overwritten; calls at the same time need one each
 *   threads            a hook; null for this thread alone
 *
 * Out may be self, element by element.  Else out and mask may not overlap anything, where all memory between the first and
 * the last element of a tensor counts as its own.  A NaN gives quant_min, and a zero point of floats is added before rounding.
 *
 * Returns a fq_tvm_status.  Unless that is FQ_TVM_OK or FQ_TVM_ERROR_FAILED, nothing was written. */
int fq_tvm_fake_quantize(const fq_tvm_tensor *self, const fq_tvm_tensor *scale, const fq_tvm_tensor *zero_point,
                         int32_t axis, int64_t quant_min, int64_t quant_max,
                         const fq_tvm_tensor *out, const fq_tvm_tensor *mask,
                         void *workspace, size_t workspace_size, const fq_tvm_threads *threads);

/* The same two of another formula, of kernels that were built for it. */
int fq_tvm_workspace_size_by(int32_t formula, const fq_tvm_tensor *self, const fq_tvm_tensor *scale,
                             const fq_tvm_tensor *zero_point, int32_t axis, int64_t quant_min, int64_t quant_max,
                             const fq_tvm_tensor *out, const fq_tvm_tensor *mask, size_t *size);
int fq_tvm_fake_quantize_by(int32_t formula, const fq_tvm_tensor *self, const fq_tvm_tensor *scale,
                            const fq_tvm_tensor *zero_point, int32_t axis, int64_t quant_min, int64_t quant_max,
                            const fq_tvm_tensor *out, const fq_tvm_tensor *mask,
                            void *workspace, size_t workspace_size, const fq_tvm_threads *threads);

/* The gradient: out = grad * mask.  All are of one shape, any strides, grad and out of one dtype.  Out may be grad, element by
 * element, and overlaps nothing else.  Status and threads are as above; there is no workspace. */
int fq_tvm_gradient(const fq_tvm_tensor *grad, const fq_tvm_tensor *mask, const fq_tvm_tensor *out,
                    const fq_tvm_threads *threads);

/* Say what a status means, in a sentence that lasts as long as the program. */
const char *fq_tvm_message(int status);

#ifdef __cplusplus
}
#endif

#endif
