/* Fused hybrid attention of RAP (arXiv 2508.05115) as a C library.
 *
 *   output = alpha * softmax(scale * q k_w^T) v_w  +  (1 - alpha) * softmax(scale * q k_f^T) v_f
 *
 * The window branch (k_w, v_w) lets the tokens of latent frame j see the audio tokens of latent frame j alone; the
 * full branch (k_f, v_f) lets every token see all audio tokens. Where both branches share keys and values, every
 * score is computed once. Inputs are fp16 or bf16; scores, softmax and sums are fp32.
 *
 * The call launches one kernel on the given stream. It allocates nothing, synchronises nothing and keeps no state, so
 * it may be captured into a CUDA graph and called from several threads.
 */
#ifndef RAP_HYBRID_ATTENTION_H
#define RAP_HYBRID_ATTENTION_H

#include <stdint.h>

#if defined(_WIN32)
#define RAP_API __declspec(dllexport)
#else
#define RAP_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define RAP_HYBRID_ATTENTION_VERSION 1

typedef enum rap_status {
    RAP_OK = 0,
    RAP_NULL_POINTER = 1,       /* a tensor that is read or written has no address */
    RAP_BAD_SIZE = 2,           /* a size is below 1 or beyond what a launch can cover */
    RAP_BAD_HEAD_DIM = 3,       /* head_dim is neither 64 nor 128 */
    RAP_BAD_DTYPE = 4,          /* dtype is neither RAP_FLOAT16 nor RAP_BFLOAT16 */
    RAP_BAD_ALPHA = 5,          /* alpha is not in 0..1 */
    RAP_BAD_SCALE = 6,          /* scale is not a positive, finite number */
    RAP_MISALIGNED = 7,         /* an address or stride is not a multiple of 16 bytes */
    RAP_BAD_STRIDE = 8,         /* a token stride is shorter than heads * head_dim, or a batch stride is negative */
    RAP_FULL_TOKENS = 9,        /* shared branches need full_tokens = frames * key_tokens */
    RAP_UNSUPPORTED_DEVICE = 10, /* compute capability below 7.5, or bf16 below 8.0 */
    RAP_CUDA_ERROR = 11         /* CUDA refused the launch; cudaPeekAtLastError() says why */
} rap_status;

typedef enum rap_dtype { RAP_FLOAT16 = 0, RAP_BFLOAT16 = 1 } rap_dtype;

/* A device tensor [batch, tokens, heads * head_dim]; strides in elements. The last axis is contiguous. */
typedef struct rap_tensor {
    void* data;
    int64_t batch_stride;
    int64_t token_stride;
} rap_tensor;

typedef struct rap_hybrid_attention_params {
    rap_tensor query;      /* [batch, frames * query_tokens, heads * head_dim], latent frame by latent frame */
    rap_tensor key;        /* [batch, frames * key_tokens, ...], what the window branch sees */
    rap_tensor value;      /* as key */
    rap_tensor full_key;   /* [batch, full_tokens, ...], what the full branch sees; data NULL or key.data: shared */
    rap_tensor full_value; /* as full_key */
    rap_tensor output;     /* as query; may be the query itself, else it overlaps no input */
    int32_t batch;
    int32_t heads;
    int32_t head_dim;     /* 64 or 128 */
    int32_t frames;       /* latent frames k */
    int32_t query_tokens; /* video tokens per latent frame, any number */
    int32_t key_tokens;   /* audio tokens per latent frame, any number */
    int32_t full_tokens;  /* audio tokens of the full branch; frames * key_tokens if shared */
    rap_dtype dtype;      /* of all tensors */
    float alpha;          /* weight of the window branch in 0..1; a branch of weight 0 is not read */
    float scale;          /* of the scores; 0 stands for 1 / sqrt(head_dim) */
} rap_hybrid_attention_params;

/* RAP_OK, or what is wrong with the parameters. Needs no GPU. */
RAP_API rap_status rap_hybrid_attention_check(const rap_hybrid_attention_params* params);

/* Launch on `stream` (a cudaStream_t) of the current device. */
RAP_API rap_status rap_hybrid_attention(const rap_hybrid_attention_params* params, struct CUstream_st* stream);

/* One sentence for a status: what is wrong and what to do. Static storage. */
RAP_API const char* rap_status_message(rap_status status);

/* RAP_HYBRID_ATTENTION_VERSION of the library; the layout of the structures changes only with it. */
RAP_API int32_t rap_hybrid_attention_version(void);

#ifdef __cplusplus
}
#endif
#endif
