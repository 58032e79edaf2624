/* A program of two kernels and more: reads calls from a file, makes them with and without threads, writes the results. */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "fq_tvm.h"

enum { MOST = 7 };
enum { MASKED, UNMASKED, GRADIENT }; /* kinds of calls */

typedef struct { int (*task)(void *, int32_t); void *data; int32_t number; int status; } Share;

static void *do_share(void *argument) {
  Share *share = argument;
  share->status = share->task(share->data, share->number);
  return 0;
}

/* A thread for each task. */
static int run(void *context, int32_t tasks, int (*task)(void *, int32_t), void *data) {
  pthread_t threads[MOST];
  Share shares[MOST];
  int status = 0;
  ++*(int *)context;
  for (int32_t i = 0; i < tasks; i++) {
    shares[i] = (Share){task, data, i, 0};
    if (pthread_create(&threads[i], 0, do_share, &shares[i])) abort();
  }
  for (int32_t i = 0; i < tasks; i++) {
    pthread_join(threads[i], 0);
    if (shares[i].status) status = shares[i].status;
  }
  return status;
}

static int64_t number(FILE *file) {
  int64_t value;
  if (fread(&value, sizeof value, 1, file) != 1) exit(3);
  return value;
}

/* A dense tensor so many bytes after the beginning of a line. */
static fq_tvm_tensor read_tensor(FILE *file, int has_data, size_t *size) {
  int64_t dtype = number(file), rank = number(file), offset = number(file), bytes = number(file), shape[FQ_TVM_MAX_RANK];
  for (int d = 0; d < rank; d++) shape[d] = number(file);
  char *memory;
  if (posix_memalign((void **)&memory, 64, (size_t)(bytes + 128))) exit(3);
  *size = (size_t)bytes;
  if (has_data && fread(memory + offset, 1, *size, file) != *size) exit(3);
  return fq_tvm_dense(memory + offset, (fq_tvm_dtype)dtype, (int32_t)rank, shape);
}

int main(int argc, char **argv) {
  FILE *in = fopen(argv[1], "rb"), *out = fopen(argv[2], "wb");
  int launches = 0;
  if (argc != 3 || !in || !out) return 3;
  for (int64_t calls = number(in); calls--;) {
    int64_t axis = number(in), low = number(in), high = number(in), tasks = number(in), by = number(in), kind = number(in);
    fq_tvm_tensor tensors[5], *mask = kind == UNMASKED ? 0 : &tensors[4];
    size_t sizes[5], bytes;
    for (int i = 0; i < 5; i++) tensors[i] = read_tensor(in, i < 3 || (i == 4 && kind == GRADIENT), &sizes[i]);
    fq_tvm_threads counted = {run, &launches, (int32_t)tasks}, *threads = tasks ? &counted : 0;
    int status;
    if (kind == GRADIENT) {
      status = fq_tvm_gradient(&tensors[0], mask, &tensors[3], threads);
    } else {
      status = fq_tvm_workspace_size_by((int32_t)by, &tensors[0], &tensors[1], &tensors[2], (int32_t)axis, low, high,
                                        &tensors[3], mask, &bytes);
      void *workspace = malloc(bytes + 1);
      if (!status && by)
        status = fq_tvm_fake_quantize_by((int32_t)by, &tensors[0], &tensors[1], &tensors[2], (int32_t)axis, low, high,
                                         &tensors[3], mask, workspace, bytes, threads);
      else if (!status)
        status = fq_tvm_fake_quantize(&tensors[0], &tensors[1], &tensors[2], (int32_t)axis, low, high, &tensors[3], mask,
                                      workspace, bytes, threads);
    }
    if (status) {
      fprintf(stderr, "%s\n", fq_tvm_message(status));
      return 1;
    }
    for (int i = 3; i < (kind == MASKED ? 5 : 4); i++)
      if (fwrite(tensors[i].data, 1, sizes[i], out) != sizes[i]) return 3;
  }
  printf("%d\n", launches);
  return fclose(out) ? 3 : 0;
}
