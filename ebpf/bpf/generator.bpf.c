/* A sender of floods for benchmarks: sends the frame it is run over (BPF_PROG_TEST_RUN with live frames) out of an
 * interface, each time from another address of the source's /16 and another port. For Ethernet, IPv4 without options and
 * UDP without a checksum. Never attached to anything. */
#include "mini.h"

enum { XDP_ABORTED = 0 };

static long (*const redirect_map)(void *map, u64 key, u64 flags) = (void *)51;
static u32 (*const random)(void) = (void *)7;

struct {
	UINT(type, 14 /* MAP_DEVMAP */);
	UINT(max_entries, 1);
	TYPE(key, u32);
	TYPE(value, u32);
} GENERATOR_OUT SEC(".maps");

struct generator_frame {
	u8 ethernet[14];
	u16 ip[10]; /* 5: checksum, 6 and 7: source */
	u16 source_port;
} __attribute__((packed));

SEC("xdp")
int generate(struct xdp_md *ctx)
{
	struct generator_frame *frame = (void *)(long)ctx->data;
	u32 chance = random(), sum = 0;

	if ((void *)(frame + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	frame->ip[7] = chance;
	frame->source_port = chance >> 16 | 1;
	frame->ip[5] = 0;
#pragma clang loop unroll(full)
	for (int at = 0; at < 10; at++)
		sum += frame->ip[at];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	frame->ip[5] = ~sum;
	return redirect_map(&GENERATOR_OUT, 0, 0);
}

char LICENSE[] SEC("license") = "Apache-2.0";
