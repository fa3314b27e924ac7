// The state of the CUDA device (d->backend), which device/cuda.cu opens, and the parts that are opened with it:
// stream.cu, product.cu, and the kernels for Hopper alone.
#pragma once
#include "common.cuh"
#include <cublasLt.h>
#include <nvtx3/nvToolsExt.h>

#define BLOCK_COUNTERS 4096

typedef struct MatmulPlans MatmulPlans;

// The kernels written for Hopper alone (kernels/ops/NAME_hopper.cu) beside portable ones, and what they are for people.
#define HOPPER_KERNELS(X)                                                                                              \
    X(matmul, "products of many tokens")                                                                               \
    X(product, "products for gradients")                                                                               \
    X(head, "the head of many tokens")                                                                                 \
    X(attention, "attention of packed sequences")                                                                      \
    X(attention_bwd, "gradients of attention")
#define HOPPER_INDEX(name, text) HOPPER_##name,
enum { HOPPER_KERNELS(HOPPER_INDEX) HOPPER_COUNT };
// What came of one when the device was opened.
typedef enum {
    HOPPER_OTHER_CARD, // the card is no Hopper
    HOPPER_USED,
    HOPPER_NO_CODE,  // this build has no code for it
    HOPPER_NO_ROOM,  // the card has too little shared memory
    HOPPER_DIFFERS,  // its results are not the portable kernel's
    HOPPER_LEFT_OUT, // GRPO_HOPPER in the environment says so
} HopperState;

struct CudaDevice {
    cudaStream_t stream;  // ops and copies, in the order of the calls
    cudaStream_t fetches; // copies to the host that run beside them
    cudaEvent_t asked;    // the point in `stream` that a fetch waits for
    int sm_count;
    bool overlaps; // whether kernels may start early (LAUNCH_EARLY): the card can, and the code was compiled to wait
    size_t memory; // bytes
    size_t shared; // bytes of shared memory a block may have
    cublasLtHandle_t blas;
    MatmulPlans *plans;
    HopperState hopper[HOPPER_COUNT]; // which of Hopper's kernels are used; none before they have been checked
    unsigned *arrived;                // [BLOCK_COUNTERS] on the device, 0 between ops: blocks of a tile that are done
    Tensor constant;                  // of the graph that is being recorded; else NONE
};

// Open and close cuBLASLt and the counters (product.cu). False after filling d->error.
bool product_open(Device *d);
void product_close(Device *d);
// c[m,n] = (or +=, with `add`) a[m,k] b[k,n], accumulated in f32; with a_t, a is stored as [k,m], with b_t, b as [n,k].
// a and b have the same dtype, c any. For gradients only: the bits are the same in every run, but those of a row depend
// on the shape. Uses the scratch that is left as workspace.
void cuda_product(Device *d, Tensor c, bool add, Tensor a, bool a_t, Tensor b, bool b_t);

// Runs every kernel written for Hopper beside the portable one, and sets d's `hopper` (device/variants.cu). On another
// card none is used. GRPO_HOPPER=off in the environment leaves all out, off:NAME,NAME those: the way out where one does
// not only differ but takes the card down. False after filling d->error.
bool hopper_open(Device *d, int compute_capability);
// Device.variant (ops.h).
const char *cuda_variant(const Device *d, int i, char line[VARIANT_LINE]);
// The checks: HOPPER_USED where forward kernels have the portable one's bits, so that it does not matter which of them
// computes a row, and backward kernels its results but for rounding. While one runs, its kernel is not in use yet.
#define HOPPER_CHECK(name, text) HopperState hopper_check_##name(Device *d);
HOPPER_KERNELS(HOPPER_CHECK)
// Whether the kernel is used.
#define HOPPER_USES(d, name) (((CudaDevice *)(d)->backend)->hopper[HOPPER_##name] == HOPPER_USED)

// The op matmul by wgmma, and with h matmul_swiglu, whose gu? is y. False, and nothing done, where it does not apply:
// the caller then takes the portable kernel.
bool hopper_matmul(Device *d, Tensor y, Tensor h, Tensor x, Tensor w);
// The op attention by wgmma, for heads of at most 128; as above.
bool hopper_attention(Device *d, Tensor y, Tensor lse, Tensor qkv, Tensor seq, Tensor prefix, int n_kv);
// The op attention_bwd by wgmma, in one pass; as above.
bool hopper_attention_bwd(Device *d, Tensor dqkv, Tensor dy, Tensor y, Tensor lse, Tensor qkv, Tensor seq,
                          Tensor prefix, int n_kv);
// c[m,n] = (or +=, with `add`) a[m,k] b[k,n] by wgmma; with a_t, a is stored as [k,m]. Gives back all scratch. False,
// and nothing done, where it does not apply or is expected to be slower than the library.
bool hopper_product(Device *d, Tensor c, bool add, Tensor a, bool a_t, Tensor b);
// The same by whichever of hopper_product and cuda_product d->products and the shape ask for (ops/matmul_bwd.cu).
void gradient_product(Device *d, Tensor c, bool add, Tensor a, bool a_t, Tensor b);
