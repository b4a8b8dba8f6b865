/* What our programs need of the kernel's ABI, and no more: no header of the machine they are built on is read, so
 * that the object is the same everywhere. The numbers are those of <linux/bpf.h>, which never change. */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int s32;
typedef long long s64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))

/* Maps are described by the types of members that nobody reads (BTF). */
#define UINT(name, value) int(*name)[value]
#define TYPE(name, type) __typeof__(type) *name
#define INNER(name, type) __typeof__(type) *name[]

enum {
	MAP_HASH = 1,
	MAP_ARRAY = 2,
	MAP_PERCPU_ARRAY = 6,
	MAP_LRU_HASH = 9,
	MAP_LPM_TRIE = 11,
	MAP_ARRAY_OF_MAPS = 12,
};

enum {
	F_NO_PREALLOC = 1, /* map flag */
	NOEXIST = 1,	   /* update flag */
};

enum { XDP_DROP = 1, XDP_PASS = 2 };
enum {
	TC_NEXT = -1, /* TC_ACT_UNSPEC and TCX_NEXT: whoever else is attached is asked too */
	TC_SHOT = 2,
};

static void *(*const map_lookup)(const void *map, const void *key) = (void *)1;
static long (*const map_update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static u64 (*const ktime_ns)(void) = (void *)5;
static long (*const skb_load)(const void *skb, u32 at, void *to, u32 len) = (void *)26;
static u64 (*const xdp_len)(void *xdp) = (void *)188;
static long (*const xdp_load)(void *xdp, u32 at, void *to, u32 len) = (void *)189;

struct xdp_md {
	u32 data;
	u32 data_end;
	u32 data_meta;
	u32 ingress_ifindex;
	u32 rx_queue_index;
	u32 egress_ifindex;
};

struct __sk_buff {
	u32 len;
	u32 pkt_type;
	u32 mark;
	u32 queue_mapping;
	u32 protocol;
	u32 vlan_present;
	u32 vlan_tci;
	u32 vlan_proto;
	u32 priority;
	u32 ingress_ifindex;
	u32 ifindex;
	u32 tc_index;
	u32 cb[5];
	u32 hash;
	u32 tc_classid;
	u32 data;
	u32 data_end;
	u32 napi_id;
	u32 family;
	u32 remote_ip4;
	u32 local_ip4;
	u32 remote_ip6[4];
	u32 local_ip6[4];
	u32 remote_port;
	u32 local_port;
	u32 data_meta;
	u64 flow_keys;
	u64 tstamp;
	u32 wire_len;
	u32 gso_segs;
	u64 sk;
	u32 gso_size;
	u32 tstamp_type;
	u64 hwtstamp;
};

/* Network order to ours and back; our programs are little endian (bpfel). */
#define SWAP16(x) __builtin_bswap16(x)
#define SWAP32(x) __builtin_bswap32(x)
