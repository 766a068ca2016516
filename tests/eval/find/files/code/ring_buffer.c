/* A fixed-size queue for one producer and one consumer, without locks. */
#include <stdatomic.h>
#include <stdbool.h>
#define SIZE 1024

static int slots[SIZE];
static atomic_uint head, tail;

bool push(int value) {
    unsigned t = atomic_load(&tail);
    if (t - atomic_load(&head) == SIZE) return false;
    slots[t % SIZE] = value;
    atomic_store(&tail, t + 1);
    return true;
}
