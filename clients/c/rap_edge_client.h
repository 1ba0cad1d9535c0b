/* A face from `rap-serve --unix PATH`: push sound, read one frame with its sound every frame time, interrupt.
 *
 * C99 or C++, Linux, GCC or Clang (whose __atomic builtins it takes), no library. docs/local.md has the protocol.
 *
 *     char message[RAP_EDGE_MESSAGE];
 *     rap_edge_client *face = rap_edge_open("/run/face.sock", 16000, NULL, message);
 *     if (face == NULL) { fputs(message, stderr); return 1; }
 *     rap_edge_push(face, pcm, samples);
 *     rap_edge_end_utterance(face);
 *     while (rap_edge_wait(face, -1) > 0) {
 *         while (rap_edge_next_event(face, &event)) { ... }
 *         while (rap_edge_next_frame(face, &frame, picture, pitch, sound)) { ... }
 *     }
 *     rap_edge_close(face);
 *
 * Threads: one may send (push, push_float, end_utterance, interrupt, finish) while another one receives (wait,
 * next_frame, next_event, reason); close when both have come back. No signal is raised when the server goes away, and
 * what has been read stays valid. */
#ifndef RAP_EDGE_CLIENT_H
#define RAP_EDGE_CLIENT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Of the messages and of the shared memory; a server of another version refuses with a sentence. */
#define RAP_EDGE_VERSION 1
/* Bytes that hold every sentence, its end included. */
#define RAP_EDGE_MESSAGE 512

typedef struct rap_edge_client rap_edge_client;

/* What all frames have in common. */
typedef struct {
    uint32_t height, width; /* of the picture, in pixels */
    uint32_t channels;      /* bytes of a pixel: 3, red, green, blue */
    uint32_t fps;           /* frames per second */
    uint32_t sample_rate;   /* of the sound, in Hz, mono: what rap_edge_open was given */
    uint32_t samples;       /* the most that a frame has */
} rap_edge_format;

/* How good the picture is for its moment. */
typedef enum {
    RAP_EDGE_GOOD = 0,
    RAP_EDGE_REDUCED = 1, /* with fewer steps or at a lower frame rate, because the machine is busy */
    RAP_EDGE_HELD = 2     /* the last one again, because the next one is late; the sound goes on */
} rap_edge_mark;

/* One frame time. */
typedef struct {
    uint64_t number;      /* counted from 0 */
    uint64_t lost;        /* frames before this one that were overwritten before they could be read */
    double pts;           /* seconds since the stream's first frame */
    int64_t published_ns; /* when it was complete, on CLOCK_MONOTONIC */
    int64_t utterance;    /* what is being said, counted from 0; -1 while nothing is */
    rap_edge_mark mark;
    uint32_t samples;     /* of its sound */
} rap_edge_frame;

typedef enum {
    RAP_EDGE_STARTED,     /* the first sound of an utterance is in this frame */
    RAP_EDGE_ENDED,       /* its last sound is */
    RAP_EDGE_INTERRUPTED, /* it was cut off before this frame */
    RAP_EDGE_NOTICE,      /* the server passed over what was sent, for the reason in `message`, and goes on */
    RAP_EDGE_CLOSED       /* it is over, for the reason in `message`; comes once, as the last event */
} rap_edge_event_kind;

typedef struct {
    rap_edge_event_kind kind;
    int64_t utterance;               /* of the first three */
    double played_ms;                /* how much of it has been played, of ENDED and INTERRUPTED */
    uint64_t frame;                  /* the number of the frame in which it happened, of the first three */
    char message[RAP_EDGE_MESSAGE];  /* a sentence in UTF-8, of the last two; else empty */
} rap_edge_event;

/* Connect and take a place.
 *
 * path:     the server's socket.
 * rate:     of the sound that will be pushed, and of that of the frames, in Hz, 8000 to 96000.
 * portrait: "p0", "p1", ... as the server was given them; NULL for the first one.
 * message:  of RAP_EDGE_MESSAGE bytes; why it did not work, or empty.
 *
 * Returns NULL if there is no such server, it is of another version, or it has no place. */
rap_edge_client *rap_edge_open(const char *path, uint32_t rate, const char *portrait, char *message);

/* Give the place back and free everything; NULL is allowed. */
void rap_edge_close(rap_edge_client *client);

/* What all frames have in common; good until rap_edge_close. */
const rap_edge_format *rap_edge_get_format(const rap_edge_client *client);

/* A descriptor that is readable (poll, select, epoll, an event loop) when there may be a frame or an event. */
int rap_edge_descriptor(const rap_edge_client *client);

/* Wait for a frame or an event for `timeout_ms`, or for ever if it is negative.
 *
 * Returns 1 if there may be one, 0 if time is up, -1 if it is over and everything has been read. Read until there is
 * nothing left before waiting again. */
int rap_edge_wait(rap_edge_client *client, int timeout_ms);

/* Read the next frame. A reader that is too slow gets the newest one, whole, and `lost` says how many are missing.
 *
 * picture: height rows of width * channels bytes, `pitch` bytes apart; NULL if only the sound is wanted.
 * sound:   room for `samples` of the format, -1..1; NULL if only the picture is wanted.
 *
 * Returns 1, or 0 if there is none yet. */
int rap_edge_next_frame(rap_edge_client *client, rap_edge_frame *frame, uint8_t *picture, size_t pitch, float *sound);

/* Read the next event. Returns 1, or 0 if there is none. */
int rap_edge_next_event(rap_edge_client *client, rap_edge_event *event);

/* Why it is over, a sentence; empty while it goes on. */
const char *rap_edge_reason(const rap_edge_client *client);

/* Add mono samples to what is being said, any number, faster than they are spoken. Blocks while the server holds a
 * minute that has not been said. Returns 0, or -1 if the server is gone. */
int rap_edge_push(rap_edge_client *client, const int16_t *pcm, size_t samples);

/* The same with samples in -1..1. */
int rap_edge_push_float(rap_edge_client *client, const float *pcm, size_t samples);

/* End what is being said, if anything is: all of it is shown, then the face idles. Returns 0, or -1 if the server is
 * gone. */
int rap_edge_end_utterance(rap_edge_client *client);

/* Drop everything that has not been shown; the face idles with the next frame. Returns 0, or -1 if the server is
 * gone. */
int rap_edge_interrupt(rap_edge_client *client);

/* End what is being said, and the connection once it has been shown. Returns 0, or -1 if the server is gone. */
int rap_edge_finish(rap_edge_client *client);

#ifdef __cplusplus
}
#endif

#endif
