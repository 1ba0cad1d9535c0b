/* A writer thread that overwrites as fast as it can and a reader that takes what it can get: no frame is torn, none
 * comes twice or out of order, and what is missing is counted. The thread sanitizer finds no data race in it either. */
#include "rap_edge_client.c"

#include <pthread.h>

#define SIZE 31 /* rows that begin at odd places */
#define SLOTS 1 /* so that every read is a race */
#define SAMPLES 7
#define FRAMES 2000

static uint8_t *memory;
static const uint32_t picture_offset = 64, sound_offset = 64 + 2944, slot_bytes = 64 + 2944 + 64;

static void store(void *to, const void *from, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        __atomic_store_n((uint8_t *)to + i, ((const uint8_t *)from)[i], __ATOMIC_RELAXED);
}

static void *write_frames(void *unused) {
    uint8_t row[SIZE * SIZE * 3];
    float sound[SAMPLES];
    for (uint64_t n = 0; n < FRAMES; n++) {
        uint8_t *slot = memory + 128 + n % SLOTS * slot_bytes;
        slot_header head;
        memset(row, (int)(n % 251), sizeof row);
        for (int i = 0; i < SAMPLES; i++) sound[i] = (float)n;
        memset(&head, 0, sizeof head);
        head.pts = (double)n;
        head.utterance = (int64_t)n;
        head.samples = SAMPLES;
        __atomic_store_n((uint64_t *)(void *)slot, 2 * n + 1, __ATOMIC_RELAXED);
        __atomic_thread_fence(__ATOMIC_RELEASE);
        store(slot + 8, (uint8_t *)&head + 8, sizeof head - 8);
        store(slot + picture_offset, row, sizeof row);
        store(slot + sound_offset, sound, sizeof sound);
        __atomic_store_n((uint64_t *)(void *)slot, 2 * n + 2, __ATOMIC_RELEASE);
        __atomic_store_n(&((ring_header *)(void *)memory)->frames, n + 1, __ATOMIC_RELEASE);
        if (n % 4 == 0) usleep(10);
    }
    return unused;
}

static int check(const rap_edge_frame *frame, const uint8_t *picture, const float *sound) {
    for (size_t i = 0; i < SIZE * SIZE * 3; i++)
        if (picture[i] != frame->number % 251) return 0;
    for (uint32_t i = 0; i < frame->samples; i++)
        if (sound[i] != (float)frame->number) return 0;
    return frame->pts == (double)frame->number && frame->utterance == (int64_t)frame->number;
}

int main(void) {
    rap_edge_client client;
    rap_edge_frame frame;
    uint8_t picture[SIZE * SIZE * 3];
    float sound[SAMPLES];
    char message[RAP_EDGE_MESSAGE] = "";
    ring_header header;
    pthread_t writer;
    uint64_t seen = 0, lost = 0, expected = 0;
    int descriptor = memfd_create("ring", 0);
    size_t length = 128 + SLOTS * slot_bytes;
    memset(&client, 0, sizeof client);
    memset(&header, 0, sizeof header);
    client.socket = client.both = client.bell = -1;
    memcpy(header.magic, MAGIC, sizeof MAGIC);
    header.version = RAP_EDGE_VERSION;
    header.header_bytes = 128;
    header.slots = SLOTS;
    header.slot_bytes = slot_bytes;
    header.height = header.width = SIZE;
    header.channels = 3;
    header.samples = SAMPLES;
    header.picture_offset = picture_offset;
    header.sound_offset = sound_offset;
    if (ftruncate(descriptor, (off_t)length) < 0) return 1;
    memory = (uint8_t *)mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    memcpy(memory, &header, sizeof header);
    if (!map_ring(&client, descriptor, message)) return fprintf(stderr, "%s\n", message), 1;
    /* One mapping, so that the sanitizer knows both sides of it. */
    munmap((void *)client.memory, length);
    client.memory = memory;
    pthread_create(&writer, NULL, write_frames, NULL);
    while (expected < FRAMES) {
        if (!rap_edge_next_frame(&client, &frame, picture, SIZE * 3, sound)) continue;
        if (!check(&frame, picture, sound)) return fprintf(stderr, "frame %d is torn\n", (int)frame.number), 1;
        if (frame.number != expected + frame.lost) return fprintf(stderr, "frames are out of order\n"), 1;
        expected = frame.number + 1;
        lost += frame.lost;
        seen++;
    }
    pthread_join(writer, NULL);
    munmap(memory, length);
    close(descriptor);
    printf("%d seen, %d lost\n", (int)seen, (int)lost);
    return seen + lost == FRAMES ? 0 : 1;
}
