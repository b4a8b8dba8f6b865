/* Gives a datagram of a group of SO_REUSEPORT sockets to the worker that its receiver index names: the second byte of
 * the index as it lies on the wire. An initiation has no receiver; it goes by the same byte of its sender's. */
#include "mini.h"

enum { MAP_REUSEPORT_SOCKARRAY = 20, SK_PASS = 1 };

struct sk_reuseport_md {
	u64 data;
	u64 data_end;
	u32 len;
	u32 eth_protocol;
	u32 ip_protocol;
	u32 bind_inany;
	u32 hash;
	u64 sk;
	u64 migrating_sk;
};

static long (*const select_socket)(void *ctx, void *map, void *key, u64 flags) = (void *)82;

/* By the number of the worker. */
struct {
	UINT(type, MAP_REUSEPORT_SOCKARRAY);
	UINT(max_entries, 256);
	TYPE(key, u32);
	TYPE(value, u32);
} STEER_SOCKETS SEC(".maps");

/* How many workers there are; set when the program is loaded. */
volatile const u32 STEER_WORKERS = 1;

enum {
	UDP_LEN = 8,
	TYPE_RESPONSE = 2,
	WORKER_AT = UDP_LEN + 5,
	/* A response carries its sender's index first. */
	WORKER_AT_IN_RESPONSE = UDP_LEN + 9,
};

SEC("sk_reuseport")
int wan_steer(struct sk_reuseport_md *ctx)
{
	u8 kind, worker;
	u32 socket;
	/* What is too short is nobody's, and goes by the hash of addresses and ports. */
	if (skb_load(ctx, UDP_LEN, &kind, 1) ||
	    skb_load(ctx, kind == TYPE_RESPONSE ? WORKER_AT_IN_RESPONSE : WORKER_AT, &worker, 1))
		return SK_PASS;
	socket = worker % STEER_WORKERS;
	/* Likewise where the worker has no socket. */
	select_socket(ctx, &STEER_SOCKETS, &socket, 0);
	return SK_PASS;
}

char LICENSE[] SEC("license") = "Apache-2.0";
