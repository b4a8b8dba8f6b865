/* AF_XDP: transport data of our tunnel to the socket of its receive queue, everything else to the kernel.
 *
 * Redirected is what a worker can read without help: untagged Ethernet, IPv4 without options or IPv6 without
 * extension headers, whole datagrams, to one of this machine's addresses and our ports, of WireGuard's type 4.
 * Handshakes stay with the kernel's sockets: they are few, and what filters there sees them. A queue without a socket
 * passes, too. */
#include "mini.h"

enum { MAP_XSK = 17 };

static long (*const redirect_map)(void *map, u64 key, u64 flags) = (void *)51;

/* Also the index of the counter. */
enum xsk_way {
	XSK_PASSED = 0,
	XSK_NO_SOCKET, /* ours, on a queue without a socket */
	XSK_REDIRECTED,
	XSK_WAYS,
};

/* An address of ours with a port, both in network order; an IPv4 address stands in the last word. */
struct xsk_end {
	u32 addr[4];
	u16 port;
	u16 version; /* of IP */
};

struct {
	UINT(type, MAP_XSK);
	UINT(max_entries, 256);
	TYPE(key, u32);
	TYPE(value, u32);
} XSK_SOCKETS SEC(".maps");

struct {
	UINT(type, MAP_HASH);
	UINT(max_entries, 4096);
	UINT(map_flags, F_NO_PREALLOC);
	TYPE(key, struct xsk_end);
	TYPE(value, u32);
} XSK_ENDS SEC(".maps");

struct {
	UINT(type, MAP_PERCPU_ARRAY);
	UINT(max_entries, XSK_WAYS);
	TYPE(key, u32);
	TYPE(value, u64);
} XSK_COUNTERS SEC(".maps");

struct ethernet {
	u8 to[6];
	u8 from[6];
	u16 type;
} __attribute__((packed));

struct ip4 {
	u8 version_len;
	u8 tos;
	u16 total_len;
	u16 id;
	u16 fragment;
	u8 ttl;
	u8 protocol;
	u16 checksum;
	u32 from;
	u32 to;
} __attribute__((packed));

struct ip6 {
	u32 version_class_label;
	u16 payload_len;
	u8 next_header;
	u8 hop_limit;
	u32 from[4];
	u32 to[4];
} __attribute__((packed));

struct udp {
	u16 from;
	u16 to;
	u16 len;
	u16 checksum;
	u32 message; /* WireGuard's type and its reserved bytes */
} __attribute__((packed));

enum {
	TYPE_IP4 = 0x0008, /* as they lie in memory */
	TYPE_IP6 = 0xdd86,
	FRAGMENT = 0xff3f,
	UDP = 17,
	TRANSPORT_DATA = 4,
};

INLINE void count(u32 way)
{
	u64 *counter = map_lookup(&XSK_COUNTERS, &way);

	if (counter)
		*counter += 1;
}

/* Whether the frame is ours to take. */
INLINE int is_ours(const struct xdp_md *xdp)
{
	void *end = (void *)(u64)xdp->data_end;
	struct ethernet *ethernet = (void *)(u64)xdp->data;
	struct xsk_end to = {};
	struct udp *udp;

	if ((void *)(ethernet + 1) > end)
		return 0;
	if (ethernet->type == TYPE_IP4) {
		struct ip4 *ip = (void *)(ethernet + 1);

		udp = (void *)(ip + 1);
		if ((void *)(udp + 1) > end)
			return 0;
		if (ip->version_len != 0x45 || (ip->fragment & FRAGMENT) || ip->protocol != UDP)
			return 0;
		to.version = 4;
		to.addr[3] = ip->to;
	} else if (ethernet->type == TYPE_IP6) {
		struct ip6 *ip = (void *)(ethernet + 1);

		udp = (void *)(ip + 1);
		if ((void *)(udp + 1) > end)
			return 0;
		if (ip->next_header != UDP)
			return 0;
		to.version = 6;
		to.addr[0] = ip->to[0];
		to.addr[1] = ip->to[1];
		to.addr[2] = ip->to[2];
		to.addr[3] = ip->to[3];
	} else {
		return 0;
	}
	if (udp->message != TRANSPORT_DATA)
		return 0;
	to.port = udp->to;
	return map_lookup(&XSK_ENDS, &to) != 0;
}

SEC("xdp") int xsk_redirect(struct xdp_md *xdp)
{
	long verdict;

	if (!is_ours(xdp)) {
		count(XSK_PASSED);
		return XDP_PASS;
	}
	verdict = redirect_map(&XSK_SOCKETS, xdp->rx_queue_index, XDP_PASS);
	count(verdict == XDP_PASS ? XSK_NO_SOCKET : XSK_REDIRECTED);
	return verdict;
}

char LICENSE[] SEC("license") = "Apache-2.0";
