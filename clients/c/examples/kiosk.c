/* A face in a window that says what comes in on stdin, s16le mono:
 *
 *     espeak-ng --stdout "Good morning" | ffmpeg -v error -i - -f s16le -ar 16000 -ac 1 - | rap_edge_kiosk PATH 16000
 *
 * It idles before and after. Space interrupts it, F is full screen, Escape leaves. */
#include "rap_edge_client.h"

#include <SDL.h>
#include <stdio.h>
#include <stdlib.h>

/* Sound that waits in the card beyond this is left out: it would be heard ever later than its picture is seen. */
#define MOST_QUEUED_SECONDS 0.2

typedef struct {
    SDL_Window *window;
    SDL_Renderer *renderer;
    SDL_Texture *texture;
    SDL_AudioDeviceID speaker;
    uint8_t *picture;
    float *sound;
} screen;

/* Says stdin, in a thread: a server that is a minute behind lets a push wait. */
static int say_stdin(void *client) {
    rap_edge_client *face = (rap_edge_client *)client;
    int16_t pcm[1024];
    size_t samples;
    while ((samples = fread(pcm, sizeof *pcm, 1024, stdin)) > 0)
        if (rap_edge_push(face, pcm, samples) < 0) return -1;
    return rap_edge_end_utterance(face);
}

static int open_screen(screen *s, const rap_edge_format *format) {
    SDL_AudioSpec wanted;
    int width = (int)format->width, height = (int)format->height;
    s->picture = (uint8_t *)malloc((size_t)format->height * format->width * format->channels);
    s->sound = (float *)malloc(format->samples * sizeof *s->sound);
    if (s->picture == NULL || s->sound == NULL) return SDL_OutOfMemory() == 0;
    if (SDL_Init(SDL_INIT_VIDEO | SDL_INIT_AUDIO) < 0) return 0;
    s->window = SDL_CreateWindow("rap-edge", SDL_WINDOWPOS_CENTERED, SDL_WINDOWPOS_CENTERED, 2 * width, 2 * height,
                                 SDL_WINDOW_RESIZABLE);
    if (s->window == NULL) return 0;
    SDL_SetHint(SDL_HINT_RENDER_SCALE_QUALITY, "linear");
    s->renderer = SDL_CreateRenderer(s->window, -1, 0);
    if (s->renderer == NULL) return 0;
    SDL_RenderSetLogicalSize(s->renderer, width, height);
    s->texture =
        SDL_CreateTexture(s->renderer, SDL_PIXELFORMAT_RGB24, SDL_TEXTUREACCESS_STREAMING, width, height);
    SDL_ShowCursor(SDL_DISABLE);
    SDL_zero(wanted);
    wanted.freq = (int)format->sample_rate;
    wanted.format = AUDIO_F32SYS;
    wanted.channels = 1;
    wanted.samples = 512;
    /* Without a loudspeaker the face is still worth seeing. */
    s->speaker = SDL_OpenAudioDevice(NULL, 0, &wanted, NULL, 0);
    if (s->speaker != 0) SDL_PauseAudioDevice(s->speaker, 0);
    return s->texture != NULL;
}

/* Plays the sound of all frames that have come, and shows the last of them. */
static void show_frames(screen *s, rap_edge_client *face) {
    const rap_edge_format *format = rap_edge_get_format(face);
    size_t pitch = (size_t)format->width * format->channels;
    Uint32 most = (Uint32)(MOST_QUEUED_SECONDS * format->sample_rate) * (Uint32)sizeof *s->sound;
    rap_edge_frame frame;
    int fresh = 0;
    while (rap_edge_next_frame(face, &frame, s->picture, pitch, s->sound)) {
        fresh = 1;
        if (s->speaker != 0 && SDL_GetQueuedAudioSize(s->speaker) < most)
            SDL_QueueAudio(s->speaker, s->sound, frame.samples * (Uint32)sizeof *s->sound);
    }
    if (!fresh) return;
    SDL_UpdateTexture(s->texture, NULL, s->picture, (int)pitch);
    SDL_RenderClear(s->renderer);
    SDL_RenderCopy(s->renderer, s->texture, NULL, NULL);
    SDL_RenderPresent(s->renderer);
}

/* Does what the keys say; returns whether to go on. */
static int obey(screen *s, rap_edge_client *face) {
    SDL_Event event;
    while (SDL_PollEvent(&event)) {
        if (event.type == SDL_QUIT) return 0;
        if (event.type != SDL_KEYDOWN) continue;
        if (event.key.keysym.sym == SDLK_ESCAPE) return 0;
        if (event.key.keysym.sym == SDLK_SPACE) {
            if (s->speaker != 0) SDL_ClearQueuedAudio(s->speaker);
            rap_edge_interrupt(face);
        }
        if (event.key.keysym.sym == SDLK_f) {
            Uint32 full = SDL_GetWindowFlags(s->window) & SDL_WINDOW_FULLSCREEN_DESKTOP;
            SDL_SetWindowFullscreen(s->window, full ? 0 : SDL_WINDOW_FULLSCREEN_DESKTOP);
        }
    }
    return 1;
}

static void tell_events(rap_edge_client *face) {
    rap_edge_event event;
    while (rap_edge_next_event(face, &event)) {
        if (event.kind == RAP_EDGE_STARTED) printf("started %lld\n", (long long)event.utterance);
        if (event.kind == RAP_EDGE_ENDED) printf("ended %lld, %.0f ms\n", (long long)event.utterance, event.played_ms);
        if (event.kind == RAP_EDGE_INTERRUPTED)
            printf("interrupted %lld, %.0f ms\n", (long long)event.utterance, event.played_ms);
        if (event.kind == RAP_EDGE_NOTICE || event.kind == RAP_EDGE_CLOSED) fprintf(stderr, "%s\n", event.message);
        fflush(stdout);
    }
}

int main(int argc, char **argv) {
    char message[RAP_EDGE_MESSAGE];
    screen s;
    rap_edge_client *face;
    SDL_zero(s);
    if (argc != 3) return fprintf(stderr, "usage: %s PATH RATE < s16le\n", argv[0]), 2;
    face = rap_edge_open(argv[1], (uint32_t)strtoul(argv[2], NULL, 10), NULL, message);
    if (face == NULL) return fprintf(stderr, "%s\n", message), 1;
    if (!open_screen(&s, rap_edge_get_format(face))) return fprintf(stderr, "%s\n", SDL_GetError()), 1;
    SDL_DetachThread(SDL_CreateThread(say_stdin, "say stdin", face));
    while (obey(&s, face) && rap_edge_wait(face, 100) >= 0) {
        tell_events(face);
        show_frames(&s, face);
    }
    tell_events(face);
    SDL_Quit();
    /* The thread may still wait for stdin, so the client goes with the program. */
    return 0;
}
