/* Prints when each frame was published and when it was seen, in nanoseconds of CLOCK_MONOTONIC, and how many were lost:
 *
 *     rap_edge_frame_times PATH FRAMES < pcm
 *
 * What comes in on stdin, s16le at 16 kHz mono, is said meanwhile. */
#define _POSIX_C_SOURCE 200809L
#include "rap_edge_client.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* If the server goes meanwhile, the last event says why. */
static void say_stdin(rap_edge_client *face) {
    int16_t pcm[4096];
    size_t samples;
    while ((samples = fread(pcm, sizeof *pcm, 4096, stdin)) > 0) rap_edge_push(face, pcm, samples);
    rap_edge_end_utterance(face);
}

static void print_frames(rap_edge_client *face, long count, uint8_t *picture, float *sound) {
    const rap_edge_format *format = rap_edge_get_format(face);
    rap_edge_frame frame;
    rap_edge_event event;
    while (count > 0 && rap_edge_wait(face, 2000) > 0) {
        while (rap_edge_next_frame(face, &frame, picture, format->width * format->channels, sound)) {
            /* Seen is what has been copied. */
            printf("%llu %.6f %lld %lld %lld %llu\n", (unsigned long long)frame.number, frame.pts,
                   (long long)frame.utterance, (long long)frame.published_ns, (long long)now_ns(),
                   (unsigned long long)frame.lost);
            count--;
        }
        while (rap_edge_next_event(face, &event))
            if (event.kind == RAP_EDGE_CLOSED) fprintf(stderr, "%s\n", event.message);
    }
}

int main(int argc, char **argv) {
    char message[RAP_EDGE_MESSAGE];
    rap_edge_client *face;
    const rap_edge_format *format;
    if (argc != 3) return fprintf(stderr, "usage: %s PATH FRAMES < s16le\n", argv[0]), 2;
    face = rap_edge_open(argv[1], 16000, NULL, message);
    if (face == NULL) return fprintf(stderr, "%s\n", message), 1;
    format = rap_edge_get_format(face);
    uint8_t *picture = (uint8_t *)malloc((size_t)format->height * format->width * format->channels);
    float *sound = (float *)malloc(format->samples * sizeof *sound);
    if (picture != NULL && sound != NULL) {
        say_stdin(face);
        print_frames(face, atol(argv[2]), picture, sound);
    }
    free(picture);
    free(sound);
    rap_edge_close(face);
    return 0;
}
