/* Openwork's engine for programs without Python: load an artifact, run it.
 *
 *     openwork_engine *engine = openwork_load("model.openwork", 2);
 *     if (!engine) { fprintf(stderr, "%s\n", openwork_error()); return 1; }
 *     const void *inputs[] = {image};
 *     void *outputs[] = {scores};
 *     if (openwork_run(engine, inputs, outputs)) { fprintf(stderr, "%s\n", openwork_error()); return 1; }
 *     openwork_free(engine);
 *
 * Errors. No function ends the process, throws or prints. Functions that return a pointer return NULL, functions that return
 * an int return -1 where something went wrong; openwork_error() then says what, in one sentence.
 *
 * Threads. Any function may be called from any thread at any time, with one exception: nobody may use an engine while it is
 * being freed, or afterwards. Calls of openwork_run on one engine wait for each other; on different engines they run at the
 * same time. So either give each of your threads an engine of its own, loaded with threads = 1, or share one engine whose
 * inference uses all cores. After fork() the child may go on using the parent's engines, unless another thread of the parent was
 * inside a call at that moment.
 *
 * Memory. An artifact file is mapped: engines and processes that load the same file share its weights. A file in use may be
 * replaced by renaming another over it; writing into it or cutting it off is not allowed.
 *
 * Tensors are dense and row-major: the last axis is contiguous. Inputs are only read. Memory of inputs and outputs is the
 * caller's, aligned as its elements are; outputs must not overlap inputs or each other.
 */
#ifndef OPENWORK_H
#define OPENWORK_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define OPENWORK_API __attribute__((visibility("default")))
#else
#define OPENWORK_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* A loaded model: weights, working memory and threads. */
typedef struct openwork_engine openwork_engine;

/* What a tensor holds. An element of OPENWORK_BOOL is a byte, zero for false and anything else for true. */
typedef enum openwork_type {
  OPENWORK_FLOAT32 = 0,
  OPENWORK_INT64 = 1,
  OPENWORK_INT32 = 2,
  OPENWORK_INT16 = 3,
  OPENWORK_INT8 = 4,
  OPENWORK_UINT8 = 5,
  OPENWORK_BOOL = 6
} openwork_type;

/* An input or output. It belongs to the engine and lives as long. Later versions may append members. */
typedef struct openwork_tensor {
  const char *name;     /* as the model calls it */
  openwork_type type;
  int rank;             /* axes; 0 for a single number */
  const int64_t *shape; /* [rank]; the first axis is the batch the model was compiled for */
  size_t bytes;         /* of the whole tensor */
} openwork_tensor;

/* The library's version, as "0.1.0". */
OPENWORK_API const char *openwork_version(void);

/* What went wrong in the last call that failed in this thread, or "". Valid until the next call in this thread. */
OPENWORK_API const char *openwork_error(void);

/* Loads an artifact file.
 * threads: how many one inference may use, 1 to 1024; 0 for the cores that this process may run on.
 * NULL if the file is missing, damaged, of another version, or has operators that only PyTorch can run. */
OPENWORK_API openwork_engine *openwork_load(const char *path, int threads);

/* Loads an artifact that lies in memory, which must stay as it is until the engine is freed; best aligned to 64 bytes. */
OPENWORK_API openwork_engine *openwork_load_memory(const void *content, size_t size, int threads);

/* Releases an engine; NULL is ignored. */
OPENWORK_API void openwork_free(openwork_engine *engine);

/* How many inputs and outputs the model has; -1 if the engine is NULL. */
OPENWORK_API int openwork_input_count(const openwork_engine *engine);
OPENWORK_API int openwork_output_count(const openwork_engine *engine);

/* An input or output, counted from 0; NULL if there is none. */
OPENWORK_API const openwork_tensor *openwork_input(const openwork_engine *engine, int index);
OPENWORK_API const openwork_tensor *openwork_output(const openwork_engine *engine, int index);

/* Runs the model once, on the batch that it was compiled for.
 * inputs: one pointer for each input, to openwork_input(engine, i)->bytes bytes.
 * outputs: one pointer for each output, to openwork_output(engine, i)->bytes bytes that are written.
 * 0, or -1 if a pointer is missing or not aligned, a whole number does not fit into 32 bits, a token is not in the vocabulary, or
 * memory or threads ran out. */
OPENWORK_API int openwork_run(openwork_engine *engine, const void *const *inputs, void *const *outputs);

/* The same for any batch, 0 included: the first axis of every tensor is `batch` here. It is run in pieces of the compiled
 * batch, the last one filled up with zeros. Also -1 if the model's inputs and outputs do not share a batch axis. */
OPENWORK_API int openwork_run_batch(openwork_engine *engine, int64_t batch, const void *const *inputs, void *const *outputs);

/* How many nested networks the model holds, each with fewer weights than the one before; 1 for most models. -1 if the engine is
 * NULL. */
OPENWORK_API int openwork_levels(const openwork_engine *engine);

/* As openwork_run_batch, with the network of `level`, 1 to openwork_levels(engine): 1 has all weights. Changing the level from
 * call to call costs nothing. Also -1 if there is no such level. */
OPENWORK_API int openwork_run_level(openwork_engine *engine, int level, int64_t batch, const void *const *inputs, void *const *outputs);

#ifdef __cplusplus
}
#endif

#endif
