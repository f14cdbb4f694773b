/* Runs an artifact on raw data:  run MODEL.openwork THREADS INPUT OUTPUT
 * INPUT holds the model's inputs one after the other, OUTPUT gets its outputs in the same way. */
#include <openwork.h>
#include <stdio.h>
#include <stdlib.h>

static int fail(const char *what) {
  fprintf(stderr, "run: %s\n", what);
  return EXIT_FAILURE;
}

static void print_tensor(const char *kind, const openwork_tensor *t) {
  static const char *const types[] = {"float32", "int64", "int32", "int16", "int8", "uint8", "bool"};
  printf("%s %s: %s [", kind, t->name, types[t->type]);
  for (int axis = 0; axis < t->rank; axis++) printf("%s%lld", axis ? ", " : "", (long long)t->shape[axis]);
  printf("]\n");
}

int main(int argc, char **argv) {
  if (argc != 5) return fail("usage: run MODEL.openwork THREADS INPUT OUTPUT");
  openwork_engine *engine = openwork_load(argv[1], atoi(argv[2]));
  if (!engine) return fail(openwork_error());

  const int inputs = openwork_input_count(engine), outputs = openwork_output_count(engine);
  void **in = calloc((size_t)inputs, sizeof *in), **out = calloc((size_t)outputs, sizeof *out);
  FILE *file = fopen(argv[3], "rb");
  if (!in || !out || !file) return fail("cannot read the input");
  for (int i = 0; i < inputs; i++) {
    const openwork_tensor *t = openwork_input(engine, i);
    print_tensor("input", t);
    in[i] = malloc(t->bytes);
    if (!in[i] || fread(in[i], 1, t->bytes, file) != t->bytes) return fail("the input is too short");
  }
  fclose(file);
  for (int i = 0; i < outputs; i++) {
    const openwork_tensor *t = openwork_output(engine, i);
    print_tensor("output", t);
    out[i] = malloc(t->bytes);
    if (!out[i]) return fail("out of memory");
  }

  if (openwork_run(engine, (const void *const *)in, out)) return fail(openwork_error());

  file = fopen(argv[4], "wb");
  if (!file) return fail("cannot write the output");
  for (int i = 0; i < outputs; i++) {
    const size_t bytes = openwork_output(engine, i)->bytes;
    if (fwrite(out[i], 1, bytes, file) != bytes) return fail("cannot write the output");
  }
  if (fclose(file)) return fail("cannot write the output");

  openwork_free(engine);
  for (int i = 0; i < inputs; i++) free(in[i]);
  for (int i = 0; i < outputs; i++) free(out[i]);
  free(in);
  free(out);
  return EXIT_SUCCESS;
}
