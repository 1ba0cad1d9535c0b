/* One thread speaks and interrupts, the other one looks on until the server is done; tells what it saw on stdout. */
#include "rap_edge_client.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static void *speak(void *client) {
    rap_edge_client *face = (rap_edge_client *)client;
    int16_t pcm[1600];
    float tone[800];
    for (int i = 0; i < 1600; i++) pcm[i] = (int16_t)(i * 7919 % 20000 - 10000);
    for (int i = 0; i < 800; i++) tone[i] = (float)(i % 40) / 40.0f;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 10; i++) rap_edge_push(face, pcm, 1600);
        rap_edge_interrupt(face);
        rap_edge_push(face, pcm, 0);
        rap_edge_push_float(face, tone, 800);
        rap_edge_end_utterance(face);
    }
    rap_edge_finish(face);
    return NULL;
}

int main(int argc, char **argv) {
    char message[RAP_EDGE_MESSAGE];
    rap_edge_client *face = rap_edge_open(argv[argc - 1], 16000, "p0", message);
    rap_edge_frame frame;
    rap_edge_event event;
    unsigned long frames = 0, ended = 0, interrupted = 0, lost = 0;
    pthread_t speaker;
    if (face == NULL) return fprintf(stderr, "%s\n", message), 1;
    const rap_edge_format *format = rap_edge_get_format(face);
    uint8_t *picture = (uint8_t *)malloc((size_t)format->height * format->width * format->channels);
    float *sound = (float *)malloc(format->samples * sizeof *sound);
    pthread_create(&speaker, NULL, speak, face);
    while (rap_edge_wait(face, 5000) > 0) {
        while (rap_edge_next_event(face, &event)) {
            ended += event.kind == RAP_EDGE_ENDED;
            interrupted += event.kind == RAP_EDGE_INTERRUPTED;
        }
        while (rap_edge_next_frame(face, &frame, picture, format->width * format->channels, sound)) {
            frames++;
            lost += frame.lost;
        }
    }
    pthread_join(speaker, NULL);
    printf("%lu %lu %lu %lu %s\n", frames > 0 && lost == 0 ? 1UL : 0UL, ended, interrupted, lost,
           rap_edge_reason(face));
    free(picture);
    free(sound);
    rap_edge_close(face);
    return 0;
}
