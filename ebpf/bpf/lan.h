/* What the LAN program shares with user space: src/lan/layout.rs has the same structures, and a test compares both with
 * the object's BTF. Every index is absolute: the half of an array that belongs to a slot is already in it. */
#ifndef PATRONUS_LAN_H
#define PATRONUS_LAN_H

/* No class, pod, node, row, port set or entry. */
#define LAN_NONE 0xffffffffU

/* lan_slot.flags */
#define LAN_SLOT_KEEP 1U     /* keep-established: flows may live that the rows deny */
#define LAN_SLOT_ANSWER 2U   /* denied packets are answered, and only user space can */
#define LAN_SLOT_PARTIAL4 4U /* not every IPv4 address found a place */
#define LAN_SLOT_PARTIAL6 8U /* not every IPv6 address found a place */

/* lan_end.flags */
#define LAN_END_ASK 1U
#define LAN_END_USED 2U

/* lan_class.flags, lan_row.flags */
#define LAN_ASK 1U

/* Addresses are searched in so many cells from where their hash points to. */
#define LAN_PROBES 32U
/* A binary search among 2^32 entries takes at most so many steps. */
#define LAN_STEPS 33U

enum lan_lane { LAN_TCP, LAN_UDP, LAN_SCTP, LAN_OTHER };
enum lan_direction { LAN_INGRESS, LAN_EGRESS };
enum lan_layer { LAN_ADMIN, LAN_NETWORK, LAN_BASELINE, LAN_LAYERS };
enum lan_action { LAN_ACCEPT, LAN_DENY, LAN_PASS };

/* What became of a packet, and why: src/lan/layout.rs names them. */
enum lan_reason {
	LAN_R_OFF,
	LAN_R_ALLOWED,
	LAN_R_REPLY,
	LAN_R_ASK,
	LAN_R_FRAGMENT,
	LAN_R_ERROR,
	LAN_R_EXTENSION,
	LAN_R_MALFORMED,
	LAN_R_TOLD,
	LAN_R_CHANGED,
	LAN_R_DENIED,
	LAN_REASONS
};

struct lan_end {
	u32 klass;   /* of the pod, or none */
	u32 pod;     /* the pod */
	u32 home;    /* the node on which it lives */
	u32 host_of; /* the node whose own address this is */
	u32 flags;
};

struct lan_addr4 {
	u32 addr; /* host order */
	struct lan_end end;
};

struct lan_addr6 {
	u64 hi, lo; /* host order */
	struct lan_end end;
	u32 pad;
};

struct lan_class {
	u32 row[6]; /* [direction * 3 + layer] */
	u32 flags;
	u32 pad;
};

struct lan_row {
	u32 flags;
	u32 isolation; /* the counter of what no rule allows */
	u32 any;       /* the port set of what is no pod, where no block is named */
	u32 any_pod;   /* the port set of pods that are not listed */
	u32 peers, peers_len;
	u32 blocks4, blocks4_len;
	u32 blocks6, blocks6_len;
};

/* Sorted by class. */
struct lan_peer {
	u32 klass;
	u32 set;
};

/* From this address on; the first one is the family's lowest. */
struct lan_block4 {
	u32 first;
	u32 set;
};

struct lan_block6 {
	u64 hi, lo;
	u32 set;
	u32 pad;
};

/* Where the intervals of TCP, UDP and SCTP begin and end. */
struct lan_set {
	u32 at[4];
	u32 other; /* the entry of every other protocol, or none */
	u32 pad;
};

/* Sorted by the last port, without overlaps. */
struct lan_port {
	u16 first, last;
	u32 order; /* the lowest of several look-ups counts */
	u32 counter;
	u32 action;
};

struct lan_slot {
	u64 sequence; /* which write this is; 0: nothing is in force here, or it is being written */
	u64 tell_ns;  /* one denied packet of a counter and CPU goes to user space in this time; 0: none does */
	u32 flags;
	u32 seed;
	u32 addr4, addr4_mask;
	u32 addr6, addr6_mask;
	u32 classes, classes_len;
};

struct lan_head {
	u32 active;
	u32 pad;
	struct lan_slot slot[2];
};

struct lan_traffic {
	u64 packets;
	u64 bytes;
};

struct lan_counter {
	u64 packets;
	u64 bytes;
	u64 told_ns; /* when user space was last told */
	u64 fence;
};

#endif
