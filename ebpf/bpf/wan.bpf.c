/* The pre-filter of the WAN side: drops at our UDP ports what the gateway would surely drop, before it costs a
 * socket, a wakeup and a copy. Everything else passes.
 *
 * The order: headers -> our port -> WireGuard's type, reserved bytes, length, receiver -> block list by source ->
 * rate of initiations by source. `src/classify.rs` is the same in Rust, and a test that the two never disagree. */
#include "mini.h"

/* Also the index of the reason's counters. */
enum wan_reason {
	WAN_PASS_OTHER = 0,
	WAN_PASS_FRAGMENT,
	WAN_PASS_EXTENSION,
	WAN_PASS_INITIATION,
	WAN_PASS_RESPONSE,
	WAN_PASS_COOKIE,
	WAN_PASS_DATA,
	WAN_PASS_MIXED,
	WAN_PASS_UNTRACKED,
	WAN_DROP_MALFORMED,
	WAN_DROP_TYPE,
	WAN_DROP_LENGTH,
	WAN_DROP_RECEIVER,
	WAN_DROP_BLOCKED,
	WAN_DROP_BOGON,
	WAN_DROP_LIMITED,
	WAN_REASONS,
};
#define WAN_DROP_FIRST WAN_DROP_MALFORMED

enum wan_flag {
	WAN_USES_LIMIT = 1,
	WAN_USES_RECEIVERS = 2,
	WAN_USES_SOURCES4 = 4,
	WAN_USES_SOURCES6 = 8,
};

enum wan_source {
	WAN_SOURCE_ALLOWED = 0,
	WAN_SOURCE_BLOCKED = 1,
	WAN_SOURCE_BOGON = 2,
};

struct wan_config {
	u64 interval_ns;  /* between two initiations of one prefix at the permitted rate */
	u64 tolerance_ns; /* how far ahead of that rate a prefix may be */
	u32 flags;	  /* enum wan_flag */
	u32 v4_mask;	  /* network order */
	u32 v6_mask[4];
};

struct wan_counter {
	u64 packets;
	u64 bytes;
};

struct wan_counters {
	struct wan_counter seen;
	struct wan_counter reason[WAN_REASONS];
};

/* An IPv6 prefix, or an IPv4 one as ::ffff:a.b.c.d. */
struct wan_rate_key {
	u32 addr[4];
};

struct wan_source4 {
	u32 prefix_len;
	u32 addr;
};

struct wan_source6 {
	u32 prefix_len;
	u32 addr[4];
};

struct {
	UINT(type, MAP_ARRAY);
	UINT(max_entries, 1);
	TYPE(key, u32);
	TYPE(value, struct wan_config);
} WAN_CONFIG SEC(".maps");

/* One bit per UDP port. */
struct {
	UINT(type, MAP_ARRAY);
	UINT(max_entries, 1024);
	TYPE(key, u32);
	TYPE(value, u64);
} WAN_PORTS SEC(".maps");

/* By the low bits of the interface's index: a packet costs one lookup however it ends, and user space knows which two
 * interfaces share an entry. */
#define WAN_PLACES 64
struct {
	UINT(type, MAP_PERCPU_ARRAY);
	UINT(max_entries, WAN_PLACES);
	TYPE(key, u32);
	TYPE(value, struct wan_counters);
} WAN_COUNTERS SEC(".maps");

/* One slot with the list in force: a new list is filled aside and put here whole. */
struct {
	UINT(type, MAP_ARRAY_OF_MAPS);
	UINT(max_entries, 1);
	TYPE(key, u32);
	INNER(values, struct {
		UINT(type, MAP_LPM_TRIE);
		UINT(max_entries, 1);
		UINT(map_flags, F_NO_PREALLOC);
		UINT(key_size, sizeof(struct wan_source4));
		UINT(value_size, sizeof(enum wan_source));
	});
} WAN_SOURCES4 SEC(".maps");

struct {
	UINT(type, MAP_ARRAY_OF_MAPS);
	UINT(max_entries, 1);
	TYPE(key, u32);
	INNER(values, struct {
		UINT(type, MAP_LPM_TRIE);
		UINT(max_entries, 1);
		UINT(map_flags, F_NO_PREALLOC);
		UINT(key_size, sizeof(struct wan_source6));
		UINT(value_size, sizeof(enum wan_source));
	});
} WAN_SOURCES6 SEC(".maps");

/* Receiver indices without their low byte, the session's. */
struct {
	UINT(type, MAP_HASH);
	UINT(max_entries, 262144);
	UINT(map_flags, F_NO_PREALLOC);
	TYPE(key, u32);
	TYPE(value, u32);
} WAN_RECEIVERS SEC(".maps");

/* When a prefix will be back within its rate, in ns of the monotonic clock (the theoretical arrival time of GCRA). */
struct {
	UINT(type, MAP_LRU_HASH);
	UINT(max_entries, 65536);
	TYPE(key, struct wan_rate_key);
	TYPE(value, u64);
} WAN_RATES SEC(".maps");

enum hook {
	HOOK_XDP,
	HOOK_XDP_GENERIC,
	HOOK_TC,
	HOOK_TC_L3,
};

struct packet {
	void *ctx;
	void *data;
	void *data_end;
	u32 len;
	u32 gso_size; /* datagram length of a train, 0 where there is one datagram */
	u32 ifindex;
	enum hook hook;
};

struct ipv4 {
	u8 version_ihl;
	u8 tos;
	u16 total_len;
	u16 id;
	u16 fragment;
	u8 ttl;
	u8 protocol;
	u16 checksum;
	u32 source;
	u32 destination;
};

/* Without the destination, which nobody reads. */
struct ipv6 {
	u32 version;
	u16 payload_len;
	u8 next;
	u8 hops;
	u32 source[4];
};

struct udp {
	u16 source;
	u16 destination;
	u16 len;
	u16 checksum;
};

enum {
	IP_UDP = 17,
	IP_HOP_BY_HOP = 0,
	IP_ROUTING = 43,
	IP_FRAGMENT = 44,
	IP_AH = 51,
	IP_DESTINATION = 60,
	IP_MOBILITY = 135,
	INITIATION_LEN = 148,
	RESPONSE_LEN = 92,
	COOKIE_LEN = 64,
	DATA_LEN_MIN = 32,
	/* UDP_GRO joins at most 64, UDP_SEGMENT sends at most 128 datagrams (UDP_MAX_SEGMENTS). */
	SEGMENTS_MAX = 128,
	LIMIT_TRIES = 4,
	WALK_INITIATIONS = 0xffff,
	WALK_GOOD = 0x10000,
};

INLINE long slow_load(void *ctx, enum hook hook, u32 at, void *to, u32 len)
{
	return hook == HOOK_XDP || hook == HOOK_XDP_GENERIC ? xdp_load(ctx, at, to, len) : skb_load(ctx, at, to, len);
}

/* Copies what lies at `at` to `*to`; 0, or not 0 where the frame ends before. Headers are in the first piece of a
 * frame, but the payload of a train often is not. */
#define LOAD(packet, at, to)                                                                                           \
	({                                                                                                             \
		void *from = (packet)->data + (at);                                                                    \
		long failed = 0;                                                                                       \
		if (from + sizeof(*(to)) <= (packet)->data_end)                                                        \
			*(to) = *(__typeof__(to))from;                                                                 \
		else                                                                                                   \
			failed = slow_load((packet)->ctx, (packet)->hook, at, to, sizeof(*(to)));                                           \
		failed;                                                                                                \
	})

INLINE int is_ours(u16 port)
{
	u32 word = port >> 6;
	u64 *bits = map_lookup(&WAN_PORTS, &word);
	return bits && (*bits >> (port & 63) & 1);
}

/* What one datagram is: `kind` are its first four bytes, it lies at `at`. */
INLINE u32 datagram_reason(void *ctx, enum hook hook, u32 flags, u32 kind, u32 at, u32 len)
{
	u32 receiver, reason, receiver_at = 4;
	if (kind == 1)
		return len == INITIATION_LEN ? WAN_PASS_INITIATION : WAN_DROP_LENGTH;
	if (kind == 2) {
		if (len != RESPONSE_LEN)
			return WAN_DROP_LENGTH;
		/* A response names its sender first. */
		receiver_at = 8;
		reason = WAN_PASS_RESPONSE;
	} else if (kind == 3) {
		if (len != COOKIE_LEN)
			return WAN_DROP_LENGTH;
		reason = WAN_PASS_COOKIE;
	} else if (kind == 4) {
		if (len < DATA_LEN_MIN)
			return WAN_DROP_LENGTH;
		reason = WAN_PASS_DATA;
	} else {
		return WAN_DROP_TYPE;
	}
	if (!(flags & WAN_USES_RECEIVERS))
		return reason;
	if (slow_load(ctx, hook, at + receiver_at, &receiver, sizeof(receiver)))
		return reason;
	receiver >>= 8;
	return map_lookup(&WAN_RECEIVERS, &receiver) ? reason : WAN_DROP_RECEIVER;
}

/* Bytes of a message whose length its type fixes. */
INLINE u32 fixed_len(u32 kind)
{
	return kind == 1 ? INITIATION_LEN : kind == 2 ? RESPONSE_LEN : kind == 3 ? COOKIE_LEN : 0;
}

/* Looks at every datagram of a train: how many initiations there are, and whether anything good. Functions of their
 * own, and without a branch on what they found, so that the verifier need not follow every train there can be. */
INLINE u32 walk(void *ctx, enum hook hook, u32 at, u32 len, u32 segment_len, u32 flags)
{
	u32 done = 0, found = 0;
	for (u32 i = 0; i < SEGMENTS_MAX; i++) {
		u32 kind = 0, left = len - done;
		if (left > segment_len)
			left = segment_len;
		if (left >= sizeof(kind))
			slow_load(ctx, hook, at + done, &kind, sizeof(kind));
		u32 reason = datagram_reason(ctx, hook, flags, kind, at + done, left);
		if (reason < WAN_DROP_FIRST)
			found |= WALK_GOOD;
		if (reason == WAN_PASS_INITIATION)
			found++;
		done += left;
		if (done >= len)
			return found;
	}
	/* Longer than any train there is. */
	return found | WALK_GOOD;
}

__attribute__((noinline)) u32 wan_walk_xdp(struct xdp_md *ctx, u32 at, u32 len, u32 segment_len, u32 flags)
{
	return walk(ctx, HOOK_XDP_GENERIC, at, len, segment_len, flags);
}

__attribute__((noinline)) u32 wan_walk_tc(struct __sk_buff *ctx, u32 at, u32 len, u32 segment_len, u32 flags)
{
	return walk(ctx, HOOK_TC, at, len, segment_len, flags);
}

/* Generic cell rate algorithm (ITU-T I.371) without a lock: a prefix has one number, and whoever exchanges it first is
 * in. An entry that is evicted at this moment may take the number to another prefix: an error of one initiation. */
INLINE u32 limited(const struct wan_config *config, const struct wan_rate_key *key, u32 initiations, u32 admitted)
{
	u64 now = ktime_ns();
	u64 cost = config->interval_ns * initiations;
	u64 tolerance = config->tolerance_ns;
	u64 *slot = map_lookup(&WAN_RATES, key);
	if (!slot) {
		u64 first = now + cost;
		if (!map_update(&WAN_RATES, key, &first, NOEXIST))
			return admitted;
		/* Another CPU was first, or the table is being cleaned. */
		slot = map_lookup(&WAN_RATES, key);
		if (!slot)
			return WAN_PASS_UNTRACKED;
	}
#pragma unroll
	for (u32 i = 0; i < LIMIT_TRIES; i++) {
		u64 old = *(volatile u64 *)slot;
		u64 base = old > now ? old : now;
		if (base - now > tolerance)
			return WAN_DROP_LIMITED;
		if (__sync_val_compare_and_swap(slot, old, base + cost) == old)
			return admitted;
	}
	/* As many initiations of the same prefix were admitted meanwhile. */
	return WAN_DROP_LIMITED;
}

INLINE u32 source_reason(const u32 *value, u32 reason)
{
	if (!value || *value == WAN_SOURCE_ALLOWED)
		return reason;
	return *value == WAN_SOURCE_BOGON ? WAN_DROP_BOGON : WAN_DROP_BLOCKED;
}

INLINE u32 judge(const struct packet *packet, const struct wan_config *config)
{
	u32 at = 0, zero = 0;
	u16 protocol;
	u32 payload_len;
	struct wan_source6 source6 = {};
	struct wan_source4 source4 = {};

	if (packet->hook == HOOK_TC_L3) {
		u8 first;
		if (LOAD(packet, 0, &first))
			return WAN_PASS_OTHER;
		protocol = first >> 4 == 4 ? SWAP16(0x0800) : first >> 4 == 6 ? SWAP16(0x86dd) : 0;
	} else {
		if (LOAD(packet, 12, &protocol))
			return WAN_PASS_OTHER;
		at = 14;
#pragma unroll
		for (u32 tags = 0; tags < 2; tags++) {
			if (protocol != SWAP16(0x8100) && protocol != SWAP16(0x88a8))
				break;
			if (LOAD(packet, at + 2, &protocol))
				return WAN_PASS_OTHER;
			at += 4;
		}
	}

	if (protocol == SWAP16(0x0800)) {
		struct ipv4 ip;
		if (LOAD(packet, at, &ip))
			return WAN_PASS_OTHER;
		u32 header_len = (ip.version_ihl & 15) * 4;
		u32 total_len = SWAP16(ip.total_len);
		if (ip.version_ihl >> 4 != 4 || header_len < 20 || total_len < header_len ||
		    at + total_len > packet->len || ip.protocol != IP_UDP)
			return WAN_PASS_OTHER;
		/* More fragments, or an offset: only the first has the UDP header, and the whole is the kernel's to join. */
		if (ip.fragment & SWAP16(0x3fff))
			return WAN_PASS_FRAGMENT;
		source4.prefix_len = 32;
		source4.addr = ip.source;
		payload_len = total_len - header_len;
		at += header_len;
	} else if (protocol == SWAP16(0x86dd)) {
		struct ipv6 ip;
		if (LOAD(packet, at, &ip))
			return WAN_PASS_OTHER;
		payload_len = SWAP16(ip.payload_len);
		if ((ip.version & 0xf0) != 0x60 || at + 40 + payload_len > packet->len)
			return WAN_PASS_OTHER;
		if (ip.next == IP_FRAGMENT)
			return WAN_PASS_FRAGMENT;
		if (ip.next == IP_HOP_BY_HOP || ip.next == IP_ROUTING || ip.next == IP_DESTINATION || ip.next == IP_AH ||
		    ip.next == IP_MOBILITY)
			return WAN_PASS_EXTENSION;
		if (ip.next != IP_UDP)
			return WAN_PASS_OTHER;
		source6.prefix_len = 128;
		__builtin_memcpy(source6.addr, ip.source, 16);
		at += 40;
	} else {
		return WAN_PASS_OTHER;
	}

	struct udp udp;
	if (payload_len < sizeof(udp) || LOAD(packet, at, &udp) || !is_ours(SWAP16(udp.destination)))
		return WAN_PASS_OTHER;
	u32 udp_len = SWAP16(udp.len);
	/* RFC 2675: a length of 0 in IPv6 is that of the payload. */
	if (udp_len == 0 && source6.prefix_len)
		udp_len = payload_len;
	if (udp_len < sizeof(udp) || udp_len > payload_len)
		return WAN_DROP_MALFORMED;
	at += sizeof(udp);

	u32 len = udp_len - sizeof(udp);
	u32 segment_len = packet->gso_size;
	u32 kind = 0, initiations, reason;
	if (segment_len == 0 || segment_len > len)
		segment_len = len;
	if (segment_len >= sizeof(kind) && LOAD(packet, at, &kind))
		return WAN_PASS_OTHER;
	if (packet->hook == HOOK_XDP_GENERIC) {
		/* What comes may be a train, and nothing says so. */
		u32 fixed = fixed_len(kind);
		if (fixed && len % fixed == 0 && len)
			segment_len = fixed;
	}
	reason = datagram_reason(packet->ctx, packet->hook, config->flags, kind, at, segment_len);
	initiations = reason == WAN_PASS_INITIATION;
	if (segment_len < len) {
		u32 last_len = len % segment_len;
		/* One good datagram keeps a train, or whoever joins his junk to a peer's train drops the peer's. And every
		 * initiation counts, or they would hide behind the first datagram. */
		if (reason >= WAN_DROP_FIRST || segment_len == INITIATION_LEN || last_len == INITIATION_LEN) {
			u32 found = packet->hook == HOOK_XDP_GENERIC
					    ? wan_walk_xdp(packet->ctx, at, len, segment_len, config->flags)
					    : wan_walk_tc(packet->ctx, at, len, segment_len, config->flags);
			initiations = found & WALK_INITIATIONS;
			if (reason >= WAN_DROP_FIRST && found & WALK_GOOD)
				reason = WAN_PASS_MIXED;
		}
	}
	if (reason >= WAN_DROP_FIRST)
		return reason;

	struct wan_rate_key key = {};
	if (source4.prefix_len) {
		if (config->flags & WAN_USES_SOURCES4) {
			void *list = map_lookup(&WAN_SOURCES4, &zero);
			if (list)
				reason = source_reason(map_lookup(list, &source4), reason);
		}
		key.addr[2] = SWAP32(0xffff);
		key.addr[3] = source4.addr & config->v4_mask;
	} else {
		if (config->flags & WAN_USES_SOURCES6) {
			void *list = map_lookup(&WAN_SOURCES6, &zero);
			if (list)
				reason = source_reason(map_lookup(list, &source6), reason);
		}
#pragma unroll
		for (u32 i = 0; i < 4; i++)
			key.addr[i] = source6.addr[i] & config->v6_mask[i];
	}
	if (reason >= WAN_DROP_FIRST || !initiations || !(config->flags & WAN_USES_LIMIT))
		return reason;
	return limited(config, &key, initiations, reason);
}

/* Judges and counts; whether to drop. */
INLINE int is_junk(const struct packet *packet)
{
	u32 zero = 0;
	struct wan_config *config = map_lookup(&WAN_CONFIG, &zero);
	u32 place = packet->ifindex & (WAN_PLACES - 1);
	struct wan_counters *counters = map_lookup(&WAN_COUNTERS, &place);
	if (!config || !counters)
		return 0;
	counters->seen.packets++;
	counters->seen.bytes += packet->len;
	u32 reason = judge(packet, config);
	if (reason < WAN_REASONS) {
		counters->reason[reason].packets++;
		counters->reason[reason].bytes += packet->len;
	}
	return reason >= WAN_DROP_FIRST;
}

INLINE int xdp(struct xdp_md *ctx, enum hook hook)
{
	struct packet packet = {
		.ctx = ctx,
		.data = (void *)(u64)ctx->data,
		.data_end = (void *)(u64)ctx->data_end,
		.len = xdp_len(ctx),
		.gso_size = 0,
		.ifindex = ctx->ingress_ifindex,
		.hook = hook,
	};
	return is_junk(&packet) ? XDP_DROP : XDP_PASS;
}

INLINE int tc(struct __sk_buff *skb, enum hook hook)
{
	struct packet packet = {
		.ctx = skb,
		.data = (void *)(u64)skb->data,
		.data_end = (void *)(u64)skb->data_end,
		.len = skb->len,
		.gso_size = skb->gso_size,
		.ifindex = skb->ifindex,
		.hook = hook,
	};
	return is_junk(&packet) ? TC_SHOT : TC_NEXT;
}

/* Native XDP: every datagram by itself, in frames of any size. */
SEC("xdp.frags")
int wan_xdp(struct xdp_md *ctx)
{
	return xdp(ctx, HOOK_XDP);
}

/* Generic XDP, where a virtual neighbour's trains come unmarked. */
SEC("xdp.frags")
int wan_xdp_generic(struct xdp_md *ctx)
{
	return xdp(ctx, HOOK_XDP_GENERIC);
}

/* Ingress of an interface with Ethernet headers. */
SEC("classifier")
int wan_tc(struct __sk_buff *skb)
{
	return tc(skb, HOOK_TC);
}

/* Ingress of an interface without a link header (PPP, tunnels). */
SEC("classifier")
int wan_tc_l3(struct __sk_buff *skb)
{
	return tc(skb, HOOK_TC_L3);
}

char LICENSE[] SEC("license") = "Apache-2.0";
