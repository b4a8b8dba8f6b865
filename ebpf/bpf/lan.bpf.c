/* The LAN side of the pre-filter: policy's rows at the door of the TUN. src/lan.rs says what it may drop and why that is
 * what user space would drop.
 *
 * Order of things: headers -> is it something that the rows can answer alone? -> both directions of the connection that
 * it opens -> for what opens nothing also those of the connection that it may answer -> count, drop or pass. */
#include "mini.h"
#include "lan.h"

/* A trial: the kernel's test run insists on an Ethernet header, which a TUN does not have, and the reason is returned. */
const volatile u32 TRIAL = 0;
#define MAC_LEN (TRIAL ? 14U : 0U)

#define F_MMAPABLE 1024
#define NOINLINE __attribute__((noinline))
#define READ_ONCE(x) (*(const volatile __typeof__(x) *)&(x))

static u64 (*const ktime_coarse_ns)(void) = (void *)160;

/* User space makes them as large as the policy needs, twice over, and writes them through a mapping of their memory. */
#define ARRAY(NAME, VALUE)                                                                         \
	struct {                                                                                   \
		UINT(type, MAP_ARRAY);                                                             \
		UINT(max_entries, 1);                                                              \
		UINT(map_flags, F_MMAPABLE);                                                       \
		TYPE(key, u32);                                                                    \
		TYPE(value, VALUE);                                                                \
	} NAME SEC(".maps")

ARRAY(lan_heads, struct lan_head);
ARRAY(lan_addrs4, struct lan_addr4);
ARRAY(lan_addrs6, struct lan_addr6);
ARRAY(lan_classes, struct lan_class);
ARRAY(lan_rows, struct lan_row);
ARRAY(lan_peers, struct lan_peer);
ARRAY(lan_blocks4, struct lan_block4);
ARRAY(lan_blocks6, struct lan_block6);
ARRAY(lan_sets, struct lan_set);
ARRAY(lan_ports, struct lan_port);

struct {
	UINT(type, MAP_PERCPU_ARRAY);
	UINT(max_entries, LAN_REASONS);
	TYPE(key, u32);
	TYPE(value, struct lan_traffic);
} lan_reasons SEC(".maps");

/* By counter; 0 is for what has no rule, and for rules beyond the map. */
struct {
	UINT(type, MAP_PERCPU_ARRAY);
	UINT(max_entries, 1);
	TYPE(key, u32);
	TYPE(value, struct lan_counter);
} lan_counters SEC(".maps");

enum lan_verdict { LAN_V_ALLOW, LAN_V_DENY, LAN_V_ASK };

/* A packet under judgement. */
struct lan_case {
	struct lan_end src, dst;
	u64 src_hi, src_lo, dst_hi, dst_lo; /* IPv4 in the last 32 bits */
	u32 classes, classes_len;
	u32 is_v4;
	u32 lane;
	u32 src_port, dst_port;
	u32 counter; /* of the denial */
};

/* What the headers say. */
struct lan_headers {
	u32 reason;  /* LAN_REASONS: the rows are asked */
	u32 opening; /* only who opens a connection sends it */
	u32 protocol;
};

/* The functions that search are global: the verifier looks at each of them once, whatever their arguments. */

/* The port set of a class among a row's peers, or -1. */
NOINLINE int lan_find_peer(u32 at, u32 len, u32 klass)
{
	u32 low = 0, high = len;

	for (u32 step = 0; step < LAN_STEPS && low < high; step++) {
		u32 middle = low + (high - low) / 2, key = at + middle;
		struct lan_peer *peer = map_lookup(&lan_peers, &key);

		if (!peer)
			return -1;
		if (peer->klass == klass)
			return peer->set;
		if (peer->klass < klass)
			low = middle + 1;
		else
			high = middle;
	}
	return -1;
}

/* The port set of the last block that begins at or before the address, or -1. */
NOINLINE int lan_find_block4(u32 at, u32 len, u32 addr)
{
	u32 low = 0, high = len;
	int set = -1;

	for (u32 step = 0; step < LAN_STEPS && low < high; step++) {
		u32 middle = low + (high - low) / 2, key = at + middle;
		struct lan_block4 *block = map_lookup(&lan_blocks4, &key);

		if (!block)
			return -1;
		if (block->first <= addr) {
			set = block->set;
			low = middle + 1;
		} else {
			high = middle;
		}
	}
	return set;
}

NOINLINE int lan_find_block6(u32 at, u32 len, u64 hi, u64 lo)
{
	u32 low = 0, high = len;
	int set = -1;

	for (u32 step = 0; step < LAN_STEPS && low < high; step++) {
		u32 middle = low + (high - low) / 2, key = at + middle;
		struct lan_block6 *block = map_lookup(&lan_blocks6, &key);

		if (!block)
			return -1;
		if (block->hi < hi || (block->hi == hi && block->lo <= lo)) {
			set = block->set;
			low = middle + 1;
		} else {
			high = middle;
		}
	}
	return set;
}

/* The entry of a port set that has the port, or -1. */
NOINLINE int lan_find_port(u32 set, u32 lane, u32 port)
{
	struct lan_set *ports = map_lookup(&lan_sets, &set);
	u32 low, high;

	if (!ports)
		return -1;
	if (lane == LAN_TCP) {
		low = ports->at[0];
		high = ports->at[1];
	} else if (lane == LAN_UDP) {
		low = ports->at[1];
		high = ports->at[2];
	} else if (lane == LAN_SCTP) {
		low = ports->at[2];
		high = ports->at[3];
	} else {
		return ports->other;
	}
	for (u32 step = 0; step < LAN_STEPS && low < high; step++) {
		u32 middle = low + (high - low) / 2;
		struct lan_port *entry = map_lookup(&lan_ports, &middle);

		if (!entry)
			return -1;
		if (entry->last < port)
			low = middle + 1;
		else if (entry->first > port)
			high = middle;
		else
			return middle;
	}
	return -1;
}

static const struct lan_end lan_nobody = {LAN_NONE, LAN_NONE, LAN_NONE, LAN_NONE, 0};

/* Who answers on an address. The slot is passed as its number: pointers into maps do not cross global functions. */
NOINLINE int lan_find_end4(u32 number, u32 addr, struct lan_end *end)
{
	u32 zero = 0;
	struct lan_head *head = map_lookup(&lan_heads, &zero);
	struct lan_slot *slot;
	u64 hash;

	if (!end || !head)
		return -1;
	*end = lan_nobody;
	slot = &head->slot[number & 1];
	hash = ((u64)(addr ^ slot->seed) * 0x9e3779b97f4a7c15ULL) >> 32;
	for (u32 probe = 0; probe < LAN_PROBES; probe++) {
		u32 key = slot->addr4 + (((u32)hash + probe) & slot->addr4_mask);
		struct lan_addr4 *cell = map_lookup(&lan_addrs4, &key);

		if (!cell || !(cell->end.flags & LAN_END_USED))
			break;
		if (cell->addr == addr) {
			*end = cell->end;
			return 0;
		}
	}
	if (slot->flags & LAN_SLOT_PARTIAL4)
		end->flags = LAN_END_ASK;
	return 0;
}

NOINLINE int lan_find_end6(u32 number, u64 hi, u64 lo, struct lan_end *end)
{
	u32 zero = 0;
	struct lan_head *head = map_lookup(&lan_heads, &zero);
	struct lan_slot *slot;
	u64 hash;

	if (!end || !head)
		return -1;
	*end = lan_nobody;
	slot = &head->slot[number & 1];
	hash = (hi ^ slot->seed) * 0x9e3779b97f4a7c15ULL;
	hash = ((lo ^ hash ^ (hash >> 32)) * 0x9e3779b97f4a7c15ULL) >> 32;
	for (u32 probe = 0; probe < LAN_PROBES; probe++) {
		u32 key = slot->addr6 + (((u32)hash + probe) & slot->addr6_mask);
		struct lan_addr6 *cell = map_lookup(&lan_addrs6, &key);

		if (!cell || !(cell->end.flags & LAN_END_USED))
			break;
		if (cell->hi == hi && cell->lo == lo) {
			*end = cell->end;
			return 0;
		}
	}
	if (slot->flags & LAN_SLOT_PARTIAL6)
		end->flags = LAN_END_ASK;
	return 0;
}

/* What one row says: the verdict, or -1 where the next layer is asked. */
NOINLINE int lan_ask_row(struct lan_case *it, u32 number, u32 layer, u32 is_src, u32 port)
{
	struct lan_row *row = map_lookup(&lan_rows, &number);
	int block, set, first = -1, second = -1;
	struct lan_port *best = 0;
	u32 klass;

	if (!it || !row)
		return LAN_V_ASK;
	/* The peer is the other end than the subject. */
	klass = is_src ? it->src.klass : it->dst.klass;
	/* Blocks with named ports: which ports the pod names is known to user space only. */
	if (row->flags & LAN_ASK && klass != LAN_NONE)
		return LAN_V_ASK;
	if (it->is_v4)
		block = lan_find_block4(row->blocks4, row->blocks4_len, is_src ? it->src_lo : it->dst_lo);
	else
		block = lan_find_block6(row->blocks6, row->blocks6_len, is_src ? it->src_hi : it->dst_hi,
					is_src ? it->src_lo : it->dst_lo);
	if (klass != LAN_NONE) {
		set = lan_find_peer(row->peers, row->peers_len, klass);
		first = lan_find_port(set < 0 ? row->any_pod : set, it->lane, port);
	} else if (block < 0) {
		first = lan_find_port(row->any, it->lane, port);
	}
	if (block >= 0)
		second = lan_find_port(block, it->lane, port);
	if (first >= 0) {
		u32 key = first;

		best = map_lookup(&lan_ports, &key);
		if (!best)
			return LAN_V_ASK;
	}
	if (second >= 0) {
		u32 key = second;
		struct lan_port *other = map_lookup(&lan_ports, &key);

		if (!other)
			return LAN_V_ASK;
		if (!best || other->order < best->order)
			best = other;
	}
	if (best && best->action == LAN_ACCEPT)
		return LAN_V_ALLOW;
	if (best && best->action == LAN_DENY) {
		it->counter = best->counter;
		return LAN_V_DENY;
	}
	if (layer == LAN_NETWORK) {
		it->counter = row->isolation;
		return LAN_V_DENY;
	}
	return -1;
}

/* What one direction says of the connection from src to dst, or, reversed, from dst to src. */
NOINLINE int lan_decide(struct lan_case *it, u32 direction, u32 reversed)
{
	struct lan_class *entry;
	struct lan_end subject, peer;
	u32 subject_is_src, klass, row, port;
	int said;

	if (!it)
		return LAN_V_ASK;
	subject_is_src = (direction == LAN_EGRESS) != (reversed != 0);
	if (subject_is_src) {
		subject = it->src;
		peer = it->dst;
	} else {
		subject = it->dst;
		peer = it->src;
	}
	if (subject.klass == LAN_NONE)
		return LAN_V_ALLOW;
	if (subject.pod == peer.pod || (it->src_hi == it->dst_hi && it->src_lo == it->dst_lo))
		return LAN_V_ALLOW;
	if (subject.home != LAN_NONE && subject.home == peer.host_of)
		return LAN_V_ALLOW;
	if (subject.klass >= it->classes_len)
		return LAN_V_ASK;
	klass = it->classes + subject.klass;
	entry = map_lookup(&lan_classes, &klass);
	if (!entry || entry->flags & LAN_ASK)
		return LAN_V_ASK;
	port = reversed ? it->src_port : it->dst_port;
	for (u32 layer = 0; layer < LAN_LAYERS; layer++) {
		row = direction == LAN_EGRESS ? entry->row[LAN_LAYERS + layer] : entry->row[layer];
		if (row == LAN_NONE)
			continue;
		said = lan_ask_row(it, row, layer, !subject_is_src, port);
		if (said >= 0)
			return said;
	}
	return LAN_V_ALLOW;
}

INLINE int lan_judge(struct lan_case *it, u32 reversed)
{
	int egress;

	if ((it->src.flags | it->dst.flags) & LAN_END_ASK)
		return LAN_V_ASK;
	egress = lan_decide(it, LAN_EGRESS, reversed);
	if (egress != LAN_V_ALLOW)
		return egress;
	return lan_decide(it, LAN_INGRESS, reversed);
}

INLINE u32 lan_word(const u8 *bytes)
{
	return (u32)bytes[0] << 8 | bytes[1];
}

INLINE u32 lan_long(const u8 *bytes)
{
	return lan_word(bytes) << 16 | lan_word(bytes + 2);
}

INLINE u64 lan_quad(const u8 *bytes)
{
	return (u64)lan_long(bytes) << 32 | lan_long(bytes + 4);
}

/* The transport header at `offset`, of which `len` bytes belong to the packet. Refuses what user space refuses. */
INLINE void lan_transport(struct __sk_buff *skb, u32 offset, u32 len, struct lan_headers *headers,
					  struct lan_case *it)
{
	u32 protocol = headers->protocol;
	u8 bytes[16] = {};

	headers->reason = LAN_R_MALFORMED;
	it->lane = LAN_OTHER;
	if (protocol == 6 || protocol == 17 || protocol == 132) {
		u32 need = protocol == 6 ? 20 : protocol == 17 ? 8 : 12;

		if (len < need)
			return;
		if (len >= 16) {
			if (skb_load(skb, MAC_LEN + offset, bytes, 16))
				return;
		} else if (len > 12) {
			/* An SCTP chunk that is cut off: its type is there. */
			if (skb_load(skb, MAC_LEN + offset, bytes, 13))
				return;
		} else if (len == 12) {
			if (skb_load(skb, MAC_LEN + offset, bytes, 12))
				return;
		} else {
			if (skb_load(skb, MAC_LEN + offset, bytes, 8))
				return;
		}
		if (protocol == 6) {
			if (bytes[12] >> 4 < 5)
				return;
			it->lane = LAN_TCP;
			headers->opening = (bytes[13] & 0x12) == 0x02;
		} else if (protocol == 17) {
			it->lane = LAN_UDP;
		} else {
			it->lane = LAN_SCTP;
			headers->opening = len > 12 && bytes[12] == 1;
		}
		it->src_port = lan_word(bytes);
		it->dst_port = lan_word(bytes + 2);
	} else if (protocol == 1 || protocol == 58) {
		u32 type, is_echo, is_error;

		if (len < 4 || skb_load(skb, MAC_LEN + offset, bytes, 4))
			return;
		type = bytes[0];
		if (protocol == 1) {
			is_echo = type == 8 || type == 0;
			is_error = type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
			headers->opening = type == 8;
		} else {
			is_echo = type == 128 || type == 129;
			is_error = type < 128 || type == 137;
			headers->opening = type == 128;
		}
		if (is_echo && len < 8)
			return;
		if (is_error) {
			headers->reason = LAN_R_ERROR;
			return;
		}
	}
	headers->reason = LAN_REASONS;
}

INLINE void lan_read4(struct __sk_buff *skb, u32 present, struct lan_headers *headers,
				      struct lan_case *it)
{
	u32 header_len, total_len, fragment;
	u8 bytes[20];

	if (present < 20 || skb_load(skb, MAC_LEN, bytes, 20))
		return;
	header_len = (bytes[0] & 15) * 4;
	total_len = lan_word(bytes + 2);
	if (header_len < 20 || header_len > total_len || total_len > present)
		return;
	it->is_v4 = 1;
	it->src_hi = it->dst_hi = 0;
	it->src_lo = lan_long(bytes + 12);
	it->dst_lo = lan_long(bytes + 16);
	fragment = lan_word(bytes + 6);
	if (fragment & 0x1fff) {
		headers->reason = LAN_R_FRAGMENT;
		return;
	}
	headers->protocol = bytes[9];
	lan_transport(skb, header_len, total_len - header_len, headers, it);
}

INLINE void lan_read6(struct __sk_buff *skb, u32 present, struct lan_headers *headers,
				      struct lan_case *it)
{
	u32 len, next;
	u8 bytes[40];

	if (present < 40 || skb_load(skb, MAC_LEN, bytes, 40))
		return;
	len = lan_word(bytes + 4);
	if (40 + len > present || 40 + len > 65535)
		return;
	it->is_v4 = 0;
	it->src_hi = lan_quad(bytes + 8);
	it->src_lo = lan_quad(bytes + 16);
	it->dst_hi = lan_quad(bytes + 24);
	it->dst_lo = lan_quad(bytes + 32);
	next = bytes[6];
	if (next == 44) {
		headers->reason = LAN_R_FRAGMENT;
		return;
	}
	if (next == 0 || next == 43 || next == 51 || next == 60) {
		headers->reason = LAN_R_EXTENSION;
		return;
	}
	headers->protocol = next;
	lan_transport(skb, 40, len, headers, it);
}

INLINE u32 lan_segments(struct __sk_buff *skb)
{
	return skb->gso_segs ? skb->gso_segs : 1;
}

/* The rows deny it: whether it is dropped all the same depends on who else has to hear of it. */
INLINE u32 lan_refuse(struct __sk_buff *skb, u32 present, struct lan_slot *slot, u64 sequence,
				      u32 flags, u32 number)
{
	struct lan_counter *counter = map_lookup(&lan_counters, &number);
	u32 zero = 0;

	if (!counter)
		counter = map_lookup(&lan_counters, &zero);
	if (!counter)
		return LAN_R_ASK;
	/* Everything read so far is read; an addition that returns a value is a full barrier on every CPU. */
	if (__sync_fetch_and_add(&counter->fence, 0) == ~0ULL)
		return LAN_R_ASK;
	if (READ_ONCE(slot->sequence) != sequence)
		return LAN_R_CHANGED;
	if (flags & LAN_SLOT_ANSWER)
		return LAN_R_TOLD;
	if (slot->tell_ns) {
		u64 now = ktime_coarse_ns();

		if (!counter->told_ns || now - counter->told_ns >= slot->tell_ns) {
			counter->told_ns = now;
			return LAN_R_TOLD;
		}
	}
	counter->packets += lan_segments(skb);
	counter->bytes += present;
	return LAN_R_DENIED;
}

INLINE u32 lan_reason_of(struct __sk_buff *skb, u32 present)
{
	struct lan_headers headers = {.reason = LAN_R_MALFORMED};
	struct lan_case it = {};
	struct lan_head *head;
	struct lan_slot *slot;
	u32 zero = 0, number, flags, counter;
	u64 sequence;
	int verdict;
	u8 first;

	head = map_lookup(&lan_heads, &zero);
	if (!head)
		return LAN_R_OFF;
	/* One policy for the whole packet: the slot is chosen once. */
	number = READ_ONCE(head->active) & 1;
	slot = &head->slot[number];
	sequence = READ_ONCE(slot->sequence);
	if (!sequence)
		return LAN_R_OFF;
	flags = slot->flags;
	if (!present || skb_load(skb, MAC_LEN, &first, 1))
		return LAN_R_MALFORMED;
	if (first >> 4 == 4)
		lan_read4(skb, present, &headers, &it);
	else if (first >> 4 == 6)
		lan_read6(skb, present, &headers, &it);
	if (headers.reason != LAN_REASONS)
		return headers.reason;
	it.classes = slot->classes;
	it.classes_len = slot->classes_len;
	if (it.is_v4) {
		lan_find_end4(number, it.src_lo, &it.src);
		lan_find_end4(number, it.dst_lo, &it.dst);
	} else {
		lan_find_end6(number, it.src_hi, it.src_lo, &it.src);
		lan_find_end6(number, it.dst_hi, it.dst_lo, &it.dst);
	}
	verdict = lan_judge(&it, 0);
	if (verdict == LAN_V_ALLOW)
		return LAN_R_ALLOWED;
	if (verdict != LAN_V_DENY)
		return LAN_R_ASK;
	counter = it.counter;
	if (!headers.opening) {
		/* It may answer a connection from the other side, or belong to a flow that is kept. */
		if (flags & LAN_SLOT_KEEP)
			return LAN_R_REPLY;
		verdict = lan_judge(&it, 1);
		if (verdict == LAN_V_ALLOW)
			return LAN_R_REPLY;
		if (verdict != LAN_V_DENY)
			return LAN_R_ASK;
	}
	return lan_refuse(skb, present, slot, sequence, flags, counter);
}

SEC("classifier")
int lan_egress(struct __sk_buff *skb)
{
	u32 present = skb->len > MAC_LEN ? skb->len - MAC_LEN : 0;
	u32 reason = lan_reason_of(skb, present);
	struct lan_traffic *traffic = map_lookup(&lan_reasons, &reason);

	if (traffic) {
		traffic->packets += lan_segments(skb);
		traffic->bytes += present;
	}
	if (TRIAL)
		return reason;
	return reason == LAN_R_DENIED ? TC_SHOT : TC_NEXT;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
