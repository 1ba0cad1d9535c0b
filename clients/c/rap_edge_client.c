#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "rap_edge_client.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MAGIC "RAPEDGE"
#define START_MS 30000
#define LINE 4096
/* The most that one message may carry, and what is converted at a time. */
#define BLOCK 16384

/* The shared memory begins with this, and every slot with the next one; all fields are little endian. */
typedef struct {
    char magic[8];
    uint32_t version, header_bytes, slots, slot_bytes;
    uint32_t height, width, channels, fps, sample_rate, samples;
    uint32_t picture_offset, sound_offset;
    uint64_t reserved;
    uint64_t frames;
} ring_header;

typedef struct {
    uint64_t state; /* 2n+1 while frame n is being written, 2n+2 once it is there */
    int64_t published_ns;
    double pts;
    int64_t utterance;
    uint32_t mark, samples;
} slot_header;

struct rap_edge_client {
    int socket, bell, both;
    const uint8_t *memory;
    size_t length;
    rap_edge_format format;
    ring_header ring; /* as it was when it was checked */
    uint64_t next;
    char line[LINE];
    size_t filled;
    int gone, over, told;
    char reason[RAP_EDGE_MESSAGE];
};

static void say(char *message, const char *text) { snprintf(message, RAP_EDGE_MESSAGE, "%s", text); }

static void end(rap_edge_client *client, const char *reason) {
    if (client->over) return;
    client->over = 1;
    say(client->reason, reason);
}

/* JSON: one object on a line, whose values are texts, numbers and null, as the server writes them. */

static const char *skip_space(const char *at) { return at + strspn(at, " \t\r"); }

/* Behind the string that begins at its first quote; NULL if it has no end. */
static const char *skip_string(const char *at) {
    for (at++; *at != '"'; at++) {
        if (*at == '\\') at++;
        if (*at == '\0') return NULL;
    }
    return at + 1;
}

/* Where the value of `key` begins; NULL if the line has none. */
static const char *find(const char *line, const char *key) {
    const char *at = skip_space(line);
    size_t length = strlen(key);
    if (*at != '{') return NULL;
    do {
        const char *name = skip_space(at + 1);
        const char *behind = *name == '"' ? skip_string(name) : NULL;
        if (behind == NULL) return NULL;
        at = skip_space(behind);
        if (*at != ':') return NULL;
        at = skip_space(at + 1);
        if ((size_t)(behind - name) == length + 2 && memcmp(name + 1, key, length) == 0) return at;
        if (*at == '"') at = skip_string(at);
        if (at != NULL) at += strcspn(at, ",}");
    } while (at != NULL && *at == ',');
    return NULL;
}

/* The text of `key`, cut to `size` bytes; empty if the line has none. */
static void text_of(const char *line, const char *key, char *text, size_t size) {
    const char *at = find(line, key);
    size_t used = 0;
    if (at != NULL && *at == '"') {
        for (at++; *at != '"' && used + 1 < size; at++) {
            /* Of what may be escaped, sentences have quotes and backslashes alone. */
            if (*at == '\\') at++;
            if (*at == '\0') break;
            text[used++] = *at;
        }
    }
    text[used] = '\0';
}

/* The number of `key`, 0 or more; `otherwise` if the line has none. */
static double number_of(const char *line, const char *key, double otherwise) {
    const char *at = find(line, key);
    char *behind = NULL;
    double value = at == NULL ? otherwise : strtod(at, &behind);
    /* What no server counts to would not fit into a whole number. */
    return behind == at || !(value >= 0 && value < 9e15) ? otherwise : value;
}

/* The messages. */

static int send_all(rap_edge_client *client, const char *line, const void *data, size_t bytes) {
    struct iovec parts[2] = {{(void *)line, strlen(line)}, {(void *)data, bytes}};
    struct msghdr message;
    memset(&message, 0, sizeof message);
    message.msg_iov = parts;
    message.msg_iovlen = 2;
    while (parts[0].iov_len + parts[1].iov_len > 0) {
        ssize_t sent = sendmsg(client->socket, &message, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0) return -1;
        for (int i = 0; i < 2; i++) {
            size_t part = (size_t)sent < parts[i].iov_len ? (size_t)sent : parts[i].iov_len;
            parts[i].iov_base = (char *)parts[i].iov_base + part;
            parts[i].iov_len -= part;
            sent -= (ssize_t)part;
        }
    }
    return 0;
}

int rap_edge_push_float(rap_edge_client *client, const float *pcm, size_t samples) {
    while (samples > 0) {
        size_t part = samples < BLOCK ? samples : BLOCK;
        char line[64];
        snprintf(line, sizeof line, "{\"type\": \"audio\", \"bytes\": %zu}\n", part * sizeof *pcm);
        if (send_all(client, line, pcm, part * sizeof *pcm) < 0) return -1;
        pcm += part;
        samples -= part;
    }
    return 0;
}

int rap_edge_push(rap_edge_client *client, const int16_t *pcm, size_t samples) {
    while (samples > 0) {
        float block[BLOCK / 4];
        size_t part = samples < BLOCK / 4 ? samples : BLOCK / 4;
        for (size_t i = 0; i < part; i++) block[i] = (float)pcm[i] / 32768.0f;
        if (rap_edge_push_float(client, block, part) < 0) return -1;
        pcm += part;
        samples -= part;
    }
    return 0;
}

int rap_edge_end_utterance(rap_edge_client *client) {
    return send_all(client, "{\"type\": \"end_utterance\"}\n", NULL, 0);
}

int rap_edge_interrupt(rap_edge_client *client) { return send_all(client, "{\"type\": \"interrupt\"}\n", NULL, 0); }

int rap_edge_finish(rap_edge_client *client) { return send_all(client, "{\"type\": \"finish\"}\n", NULL, 0); }

/* Take what the server has sent, without waiting. */
static void receive(rap_edge_client *client) {
    while (!client->gone && client->filled < LINE) {
        ssize_t got = recv(client->socket, client->line + client->filled, LINE - client->filled, MSG_DONTWAIT);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
        if (got > 0) client->filled += (size_t)got;
        else client->gone = 1;
    }
}

/* Take the next whole line out of what has come; returns 0 if there is none. */
static int take_line(rap_edge_client *client, char *line) {
    char *stop = (char *)memchr(client->line, '\n', client->filled);
    size_t length;
    if (stop == NULL) {
        if (client->filled == LINE) end(client, "The server sent too long a line; use the client of its release.");
        return 0;
    }
    length = (size_t)(stop - client->line);
    memcpy(line, client->line, length);
    line[length] = '\0';
    client->filled -= length + 1;
    memmove(client->line, stop + 1, client->filled);
    return 1;
}

static int read_event(rap_edge_client *client, const char *line, rap_edge_event *event) {
    char type[32], what[32];
    text_of(line, "type", type, sizeof type);
    text_of(line, "event", what, sizeof what);
    event->utterance = (int64_t)number_of(line, "utterance", -1);
    event->played_ms = number_of(line, "played_ms", 0);
    event->frame = (uint64_t)number_of(line, "frame", 0);
    text_of(line, "message", event->message, sizeof event->message);
    if (strcmp(type, "utterance") == 0) {
        event->message[0] = '\0';
        if (strcmp(what, "started") == 0) event->kind = RAP_EDGE_STARTED;
        else if (strcmp(what, "ended") == 0) event->kind = RAP_EDGE_ENDED;
        else if (strcmp(what, "interrupted") == 0) event->kind = RAP_EDGE_INTERRUPTED;
        else return 0;
        return 1;
    }
    if (strcmp(type, "end") == 0) {
        end(client, event->message);
        return 0;
    }
    event->kind = RAP_EDGE_NOTICE;
    return strcmp(type, "notice") == 0;
}

int rap_edge_next_event(rap_edge_client *client, rap_edge_event *event) {
    char line[LINE];
    memset(event, 0, sizeof *event);
    receive(client);
    while (!client->over && take_line(client, line)) {
        if (read_event(client, line, event)) return 1;
        receive(client);
    }
    if (client->gone) end(client, "The server is gone.");
    if (!client->over || client->told) return 0;
    client->told = 1;
    memset(event, 0, sizeof *event);
    event->kind = RAP_EDGE_CLOSED;
    say(event->message, client->reason);
    return 1;
}

const char *rap_edge_reason(const rap_edge_client *client) { return client->reason; }

/* The ring. */

static const slot_header *slot_of(const rap_edge_client *client, uint64_t number) {
    size_t place = (size_t)(number % client->ring.slots);
    const uint8_t *slots = client->memory + client->ring.header_bytes;
    return (const slot_header *)(const void *)(slots + place * client->ring.slot_bytes);
}

static uint64_t published(const rap_edge_client *client) {
    const ring_header *header = (const ring_header *)(const void *)client->memory;
    return __atomic_load_n(&header->frames, __ATOMIC_ACQUIRE);
}

/* Copy what another process may be writing: word by word where the source is aligned, so that it is no data race. */
static void copy_shared(void *to, const uint8_t *from, size_t bytes) {
    uint8_t *target = (uint8_t *)to;
    for (; bytes > 0 && (uintptr_t)from % 8 != 0; bytes--) *target++ = __atomic_load_n(from++, __ATOMIC_RELAXED);
    for (; bytes >= 8; bytes -= 8, from += 8, target += 8) {
        uint64_t word = __atomic_load_n((const uint64_t *)(const void *)from, __ATOMIC_RELAXED);
        memcpy(target, &word, 8);
    }
    for (; bytes > 0; bytes--) *target++ = __atomic_load_n(from++, __ATOMIC_RELAXED);
}

/* Copy frame `number`; returns 0 if it has been overwritten, also in the middle of it. */
static int read_slot(const rap_edge_client *client, uint64_t number, rap_edge_frame *frame, uint8_t *picture,
                     size_t pitch, float *sound) {
    const slot_header *slot = slot_of(client, number);
    const uint8_t *bytes = (const uint8_t *)slot;
    size_t row = (size_t)client->format.width * client->format.channels;
    uint64_t complete = 2 * number + 2;
    slot_header head;
    if (__atomic_load_n(&slot->state, __ATOMIC_ACQUIRE) != complete) return 0;
    copy_shared(&head, bytes, sizeof head);
    if (head.samples > client->format.samples) return 0;
    if (picture != NULL) {
        for (uint32_t y = 0; y < client->format.height; y++)
            copy_shared(picture + y * pitch, bytes + client->ring.picture_offset + y * row, row);
    }
    if (sound != NULL) copy_shared(sound, bytes + client->ring.sound_offset, head.samples * sizeof *sound);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (__atomic_load_n(&slot->state, __ATOMIC_RELAXED) != complete) return 0;
    frame->number = number;
    frame->pts = head.pts;
    frame->published_ns = head.published_ns;
    frame->utterance = head.utterance;
    frame->mark = head.mark <= RAP_EDGE_HELD ? (rap_edge_mark)head.mark : RAP_EDGE_HELD;
    frame->samples = head.samples;
    return 1;
}

static int has_frame(rap_edge_client *client) {
    uint64_t count;
    if (published(client) > client->next) return 1;
    /* Quiet the bell before looking again, so that no frame comes unheard. */
    if (read(client->bell, &count, sizeof count) < 0) count = 0;
    return published(client) > client->next;
}

int rap_edge_next_frame(rap_edge_client *client, rap_edge_frame *frame, uint8_t *picture, size_t pitch, float *sound) {
    uint64_t number = client->next;
    if (!has_frame(client)) return 0;
    /* Every try but the last has lost a race of hundreds of milliseconds. */
    for (uint32_t tries = 0; tries <= client->ring.slots; tries++) {
        if (read_slot(client, number, frame, picture, pitch, sound)) {
            frame->lost = number - client->next;
            client->next = number + 1;
            return 1;
        }
        number = published(client) - 1;
    }
    return 0;
}

int rap_edge_descriptor(const rap_edge_client *client) { return client->both; }

int rap_edge_wait(rap_edge_client *client, int timeout_ms) {
    struct epoll_event ready;
    int count;
    if (has_frame(client)) return 1;
    if (client->over) return client->told ? -1 : 1;
    if (memchr(client->line, '\n', client->filled) != NULL) return 1;
    do count = epoll_wait(client->both, &ready, 1, timeout_ms);
    while (count < 0 && errno == EINTR && timeout_ms < 0);
    return count > 0 || (count < 0 && errno != EINTR);
}

/* Opening and closing. */

/* Map the shared memory, if it is what this client knows. */
static int map_ring(rap_edge_client *client, int memory, char *message) {
    struct stat status;
    ring_header header;
    uint64_t picture, sound;
    const char *other = "The server shares frames of another version; use the client of its release.";
    if (fstat(memory, &status) < 0 || (size_t)status.st_size < sizeof header) return say(message, other), 0;
    client->length = (size_t)status.st_size;
    void *mapped = mmap(NULL, client->length, PROT_READ, MAP_SHARED, memory, 0);
    if (mapped == MAP_FAILED) return say(message, "The server's frames cannot be mapped; is memory full?"), 0;
    client->memory = (const uint8_t *)mapped;
    memcpy(&header, client->memory, sizeof header);
    picture = (uint64_t)header.height * header.width * header.channels;
    sound = (uint64_t)header.samples * sizeof(float);
    if (memcmp(header.magic, MAGIC, sizeof MAGIC) != 0 || header.version != RAP_EDGE_VERSION || header.slots == 0 ||
        header.header_bytes < sizeof header || header.header_bytes % 8 != 0 || header.slot_bytes % 8 != 0 ||
        header.picture_offset < sizeof(slot_header) || header.picture_offset + picture > header.slot_bytes ||
        header.sound_offset < sizeof(slot_header) || header.sound_offset + sound > header.slot_bytes ||
        header.header_bytes + (uint64_t)header.slots * header.slot_bytes > client->length)
        return say(message, other), 0;
    client->format.height = header.height;
    client->format.width = header.width;
    client->format.channels = header.channels;
    client->format.fps = header.fps;
    client->format.sample_rate = header.sample_rate;
    client->format.samples = header.samples;
    client->ring = header;
    return 1;
}

static int milliseconds_since(const struct timespec *began) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int)((now.tv_sec - began->tv_sec) * 1000 + (now.tv_nsec - began->tv_nsec) / 1000000);
}

/* Wait for the server's first line and take it, with the two descriptors that come with it. */
static int receive_answer(rap_edge_client *client, char *line, int descriptors[2]) {
    struct timespec began;
    clock_gettime(CLOCK_MONOTONIC, &began);
    while (!take_line(client, line)) {
        union {
            char bytes[CMSG_SPACE(2 * sizeof(int))];
            struct cmsghdr aligned;
        } control;
        struct iovec part = {client->line + client->filled, LINE - client->filled};
        struct pollfd readable = {client->socket, POLLIN, 0};
        struct msghdr message;
        struct cmsghdr *with;
        ssize_t got;
        int left = START_MS - milliseconds_since(&began);
        if (client->over || left <= 0) return 0;
        if (poll(&readable, 1, left) <= 0) continue;
        memset(&message, 0, sizeof message);
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        got = recvmsg(client->socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN)) return 0;
        if (got < 0) continue;
        client->filled += (size_t)got;
        for (with = CMSG_FIRSTHDR(&message); with != NULL; with = CMSG_NXTHDR(&message, with)) {
            size_t count = (with->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            if (with->cmsg_level != SOL_SOCKET || with->cmsg_type != SCM_RIGHTS) continue;
            for (size_t i = 0; i < count; i++) {
                int *place = descriptors[0] < 0 ? &descriptors[0] : &descriptors[1];
                int given;
                memcpy(&given, CMSG_DATA(with) + i * sizeof given, sizeof given);
                if (*place >= 0) close(given);
                else *place = given;
            }
        }
    }
    return 1;
}

static int connect_to(rap_edge_client *client, const char *path, char *message) {
    struct sockaddr_un address;
    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    if (strlen(path) >= sizeof address.sun_path) {
        snprintf(message, RAP_EDGE_MESSAGE, "The socket's path is longer than %zu bytes; choose a shorter one.",
                 sizeof address.sun_path - 1);
        return 0;
    }
    memcpy(address.sun_path, path, strlen(path));
    client->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (client->socket < 0 || connect(client->socket, (struct sockaddr *)&address, sizeof address) < 0) {
        snprintf(message, RAP_EDGE_MESSAGE, "There is no server at %.120s (%.80s); start rap-serve --unix.", path,
                 strerror(errno));
        return 0;
    }
    return 1;
}

/* Whether `portrait` can stand in a message as it is. */
static int is_plain(const char *portrait) {
    size_t length = strlen(portrait);
    for (size_t i = 0; i < length; i++)
        if (portrait[i] < ' ' || portrait[i] > '~' || portrait[i] == '"' || portrait[i] == '\\') return 0;
    return length <= 64;
}

static int shake_hands(rap_edge_client *client, uint32_t rate, const char *portrait, int descriptors[2],
                       char *message) {
    char line[LINE], type[32];
    if (portrait != NULL && !is_plain(portrait)) return say(message, "The portrait's name is none; say p0."), 0;
    snprintf(line, sizeof line, "{\"type\": \"start\", \"version\": %d, \"rate\": %u, \"format\": \"f32le\"%s%s%s}\n",
             RAP_EDGE_VERSION, rate, portrait == NULL ? "" : ", \"portrait\": \"", portrait == NULL ? "" : portrait,
             portrait == NULL ? "" : "\"");
    /* A server that refuses at once may be gone before it has read; its word is still there. */
    (void)send_all(client, line, NULL, 0);
    if (!receive_answer(client, line, descriptors)) return say(message, "The server does not answer; try again."), 0;
    text_of(line, "type", type, sizeof type);
    if (strcmp(type, "ready") != 0) {
        text_of(line, "message", message, RAP_EDGE_MESSAGE);
        if (message[0] == '\0') say(message, "This is no server of rap-edge.");
        return 0;
    }
    if (descriptors[1] < 0) return say(message, "The server shared no frames; too many files may be open."), 0;
    return 1;
}

static int watch_both(rap_edge_client *client) {
    struct epoll_event event;
    memset(&event, 0, sizeof event);
    event.events = EPOLLIN;
    client->both = epoll_create1(EPOLL_CLOEXEC);
    return client->both >= 0 && epoll_ctl(client->both, EPOLL_CTL_ADD, client->socket, &event) == 0 &&
           epoll_ctl(client->both, EPOLL_CTL_ADD, client->bell, &event) == 0;
}

rap_edge_client *rap_edge_open(const char *path, uint32_t rate, const char *portrait, char *message) {
    rap_edge_client *client = (rap_edge_client *)calloc(1, sizeof *client);
    int descriptors[2] = {-1, -1};
    int opened = 0;
    message[0] = '\0';
    if (client == NULL) return say(message, "Memory is full."), (rap_edge_client *)NULL;
    client->socket = client->bell = client->both = -1;
    if (connect_to(client, path, message) && shake_hands(client, rate, portrait, descriptors, message) &&
        map_ring(client, descriptors[0], message)) {
        client->bell = descriptors[1];
        descriptors[1] = -1;
        opened = watch_both(client);
        if (!opened) say(message, "Too many files are open.");
    }
    for (int i = 0; i < 2; i++)
        if (descriptors[i] >= 0) close(descriptors[i]);
    if (opened) return client;
    rap_edge_close(client);
    return NULL;
}

void rap_edge_close(rap_edge_client *client) {
    if (client == NULL) return;
    if (client->memory != NULL) munmap((void *)client->memory, client->length);
    if (client->both >= 0) close(client->both);
    if (client->bell >= 0) close(client->bell);
    if (client->socket >= 0) close(client->socket);
    free(client);
}

const rap_edge_format *rap_edge_get_format(const rap_edge_client *client) { return &client->format; }
