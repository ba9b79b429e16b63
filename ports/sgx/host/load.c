/* See the header. An image is only as good as SGX finds it: what is wrong with it shows when the enclave is
 * initialized, since its measurement is then another. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "enclave.h"

_Static_assert(sizeof(ttx_secs) == TTE_PAGE_BYTES, "as the processor reads it");
_Static_assert(sizeof(ttx_sigstruct) == TTE_SIGSTRUCT_BYTES, "as the processor reads it");

int ttx_fail(char *why, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  (void)vsnprintf(why, TTX_WHY_BYTES, format, arguments);
  va_end(arguments);
  return -1;
}

int ttx_protection(const tte_run *run) {
  const uint64_t flags = run->secinfo_flags;
  return (flags & TTX_READ ? PROT_READ : 0) | (flags & TTX_WRITE ? PROT_WRITE : 0) |
         (flags & TTX_EXECUTE ? PROT_EXEC : 0);
}

typedef struct file {
  uint8_t *data;
  size_t bytes;
} file;

static int read_file(const char *path, file *f, char *why) {
  FILE *stream = fopen(path, "rb");
  long bytes = -1;
  if (stream && fseek(stream, 0, SEEK_END) == 0) bytes = ftell(stream);
  if (bytes >= 0 && fseek(stream, 0, SEEK_SET) == 0) f->data = malloc((size_t)bytes + 1);
  f->bytes = f->data ? fread(f->data, 1, (size_t)bytes, stream) : 0;
  const int failed = !f->data || f->bytes != (size_t)bytes;
  if (failed) (void)ttx_fail(why, "%s: %s", path, errno ? strerror(errno) : "cannot be read");
  if (stream) (void)fclose(stream);
  return failed ? -1 : 0;
}

static int is_page(uint64_t offset) { return offset % TTE_PAGE_BYTES == 0; }

static int check_run(const tte_image *image, const tte_run *run, size_t file_bytes) {
  return is_page(run->offset) && is_page(run->bytes) && run->bytes != 0 && run->bytes <= image->enclave_bytes &&
         run->offset <= image->enclave_bytes - run->bytes && run->contents_bytes <= run->bytes &&
         run->contents_offset <= file_bytes && run->contents_bytes <= file_bytes - run->contents_offset;
}

static const tte_run *runs_of(const tte_image *image) { return (const void *)(image + 1); }

static int check_image(const file *f, const char *path, char *why) {
  const tte_image *image = (const void *)f->data;
  if (f->bytes < sizeof *image || image->magic != TTE_IMAGE_MAGIC)
    return ttx_fail(why, "%s is no enclave: 'tinytee sgx build' makes one", path);
  if (image->version != TTE_IMAGE_VERSION)
    return ttx_fail(why, "%s is an enclave of version %u, this loader reads %d", path, (unsigned)image->version,
                    (int)TTE_IMAGE_VERSION);
  const uint64_t size = image->enclave_bytes;
  int good = image->run_count <= TTE_MAX_RUNS && f->bytes >= sizeof *image + image->run_count * sizeof(tte_run) &&
             size >= 2 * TTE_PAGE_BYTES && size <= 1ull << 36 && (size & (size - 1)) == 0 &&
             is_page(image->tcs_offset) && image->tcs_offset < size;
  for (uint32_t i = 0; good && i < image->run_count; i++) good = check_run(image, &runs_of(image)[i], f->bytes);
  return good ? 0 : ttx_fail(why, "%s is damaged: build the enclave again with 'tinytee sgx build'", path);
}

/* Addresses for the enclave, aligned to its size. */
static int reserve(ttx_secs *secs, char *why) {
  const size_t size = secs->size;
  uint8_t *area = mmap(NULL, 2 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (area == MAP_FAILED) return ttx_fail(why, "no addresses for an enclave of %zu bytes", size);
  const size_t before = (size - (uintptr_t)area % size) % size;
  if (before) (void)munmap(area, before);
  if (before < size) (void)munmap(area + before + size, size - before);
  secs->base = (uint64_t)(uintptr_t)(area + before);
  return 0;
}

static int add_run(ttx_enclave *enclave, const tte_run *run, const uint8_t *data, char *why) {
  uint8_t *contents = mmap(NULL, run->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (contents == MAP_FAILED) return ttx_fail(why, "no memory for %llu bytes", (unsigned long long)run->bytes);
  memcpy(contents, data + run->contents_offset, run->contents_bytes);
  const int failed = enclave->processor->add(enclave, run, contents, why);
  (void)munmap(contents, run->bytes);
  return failed;
}

static int build(ttx_enclave *enclave, const file *f, char *why) {
  const tte_image *image = (const void *)f->data;
  enclave->secs->size = image->enclave_bytes;
  enclave->secs->ssa_frame_pages = 1;
  enclave->secs->attributes = image->attributes;
  enclave->secs->xfrm = image->xfrm;
  if (reserve(enclave->secs, why)) return -1;
  enclave->tcs = enclave->secs->base + image->tcs_offset;
  if (enclave->processor->create(enclave, why)) return -1;
  for (uint32_t i = 0; i < image->run_count; i++)
    if (add_run(enclave, &runs_of(image)[i], f->data, why)) return -1;
  return enclave->processor->init(enclave, (const ttx_sigstruct *)(const void *)image->sigstruct, why);
}

ttx_enclave *ttx_load(const char *path, const ttx_processor *processor, char *why) {
  file f = {0};
  ttx_enclave *enclave = calloc(1, sizeof *enclave);
  int failed = !enclave;
  if (enclave) {
    enclave->processor = processor;
    enclave->device = -1;
    enclave->secs = mmap(NULL, sizeof *enclave->secs, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    failed = enclave->secs == MAP_FAILED;
    if (failed) enclave->secs = NULL;
  }
  if (failed) (void)ttx_fail(why, "no memory");
  failed = failed || read_file(path, &f, why) || check_image(&f, path, why) || build(enclave, &f, why);
  free(f.data);
  if (!failed) return enclave;
  ttx_unload(enclave);
  return NULL;
}

void ttx_unload(ttx_enclave *enclave) {
  if (!enclave) return;
  enclave->processor->remove(enclave);
  if (enclave->secs) {
    if (enclave->secs->base) (void)munmap((void *)(uintptr_t)enclave->secs->base, enclave->secs->size);
    (void)munmap(enclave->secs, sizeof *enclave->secs);
  }
  free(enclave);
}
