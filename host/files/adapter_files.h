// Adapters as huggingface/peft lays them out: adapter_config.json and adapter_model.safetensors.
#pragma once
#include "error.h"
#include "model.h"
#include "outdir.h"

// Whether a directory holds an adapter.
bool adapter_is(const char *dir);
// What an adapter's config and the names in its file say. Refuses what PEFT would compute in another way (DoRA, ranks
// that differ, biases, whole modules ...), rank 0.
bool adapter_describe(const char *dir, AdapterSpec *out, Error *e);
// Fills a->slab (d's memory) from a directory of the same spec. Refuses one made for another shape; and, where the file
// says which weights it was trained beside and a->base does too, one of others.
bool adapter_read(const char *dir, Device *d, Adapter *a, Error *e);
// Checks names and shapes of the files as adapter_read does beside a model of these dims, but reads no values.
bool adapter_check(const char *dir, ModelDims dims, const AdapterSpec *s, Error *e);
// Notes which weights m's adapter is beside, for adapter_read and adapter_write: "bf16 crc32c 01234567" of them
// rounded, and of those in f32 ", f32 crc32c 89abcdef". m's own are there, and a head that the adapter has instead is
// 0.
void adapter_beside(Device *d, const Model *m);
// The directory of the model that it was trained beside, as its config names it (heap). NULL after filling *e: there is
// none.
char *adapter_model_dir(const char *dir, Error *e);
// Writes both files into a directory being written. base_model: what the config names as its model.
bool adapter_write(OutDir *out, const char *base_model, Device *d, const Adapter *a, Error *e);
uint64_t adapter_bytes(const Adapter *a);
