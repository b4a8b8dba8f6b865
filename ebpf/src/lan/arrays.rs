//! Maps of the LAN program as memory: a policy of 100,000 addresses is written as it lies, not entry by entry.

#![expect(unsafe_code, reason = "memory that the kernel shares with us")]

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use aya::maps::MapData;

use super::layout::{Cell, Head, Slot};

/// An array map, mapped.
#[derive(Debug)]
pub(super) struct Mapped<T> {
    at: NonNull<T>,
    entries: u32,
    bytes: usize,
    _cells: PhantomData<T>,
}

// SAFETY:
// - the memory is the kernel's and belongs to no thread
// - every write goes through `&mut self`, so there is one writer; programs read what it writes, see `Mapped::write`
unsafe impl<T: Cell> Send for Mapped<T> {}

impl<T: Cell> Mapped<T> {
    /// Maps the memory of a map with `BPF_F_MMAPABLE` of `entries` values.
    pub(super) fn new(map: &MapData, entries: u32) -> io::Result<Self> {
        // The kernel rounds values up to eight bytes; ours are whole already, so that they lie as in a slice.
        const { assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() <= 8) }
        let bytes = size_of::<T>() * entries as usize;
        // SAFETY:
        // - no address is asked for, so nothing that is mapped already is replaced
        // - the descriptor is open for the call; the mapping keeps the map alive afterwards
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.fd().as_fd().as_raw_fd(),
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let at = NonNull::new(at.cast::<T>());
        Ok(Self {
            at: at.ok_or_else(|| io::Error::other("mmap gave no address"))?,
            entries,
            bytes,
            _cells: PhantomData,
        })
    }

    /// Writes `cells` from entry `first` on. No program may be reading those entries.
    pub(super) fn write(&mut self, first: u32, cells: &[T]) {
        let end = first as usize + cells.len();
        assert!(
            end <= self.entries as usize,
            "{end} of {} entries",
            self.entries
        );
        // SAFETY:
        // - `first + cells.len()` entries are mapped, by the assertion, and the mapping is writable
        // - `cells` is a slice of ours, which the kernel's memory cannot overlap
        // - `T` is plain data (`Cell`), so that any bytes of it may lie there
        unsafe {
            let to = self.at.as_ptr().add(first as usize);
            std::ptr::copy_nonoverlapping(cells.as_ptr(), to, cells.len());
        }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY:
        // - the address and length are those of the mapping, which nothing else unmaps
        // - no reference into it outlives a method call
        unsafe {
            libc::munmap(self.at.as_ptr().cast(), self.bytes);
        }
    }
}

impl Mapped<Head> {
    /// Says that nothing is in force in a slot, before it is written.
    pub(super) fn close(&mut self, slot: usize) {
        self.sequence(slot).store(0, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Puts a written slot in force: from here on every packet is judged by it, and no packet by both.
    pub(super) fn open(&mut self, slot: usize, content: Slot) {
        let closed = Slot {
            sequence: 0,
            ..content
        };
        // SAFETY:
        // - there is one head, and `slot` is 0 or 1: see the assertion
        // - programs that still read the slot see sequence 0 or find it changed when they are done
        unsafe {
            assert!(slot < 2, "slot {slot}");
            let to = &raw mut (*self.at.as_ptr()).slot[slot];
            to.write_volatile(closed);
        }
        fence(Ordering::SeqCst);
        self.sequence(slot)
            .store(content.sequence, Ordering::Release);
        fence(Ordering::SeqCst);
        // SAFETY:
        // - the field is mapped, aligned to four bytes, and programs read it as one word
        // - `&mut self`: no other reference to it exists in this process
        let active = unsafe { AtomicU32::from_ptr(&raw mut (*self.at.as_ptr()).active) };
        active.store(slot as u32, Ordering::Release);
    }

    fn sequence(&mut self, slot: usize) -> &AtomicU64 {
        assert!(slot < 2, "slot {slot}");
        // SAFETY:
        // - the field is mapped, aligned to eight bytes, and programs read it as one word
        // - `&mut self`: no other reference to it exists in this process
        unsafe { AtomicU64::from_ptr(&raw mut (*self.at.as_ptr()).slot[slot].sequence) }
    }
}

/// Waits until every program that runs at this moment has ended. Programs run in RCU sections, and this command of
/// membarrier(2) waits for a grace period. Where the kernel refuses it (`nohz_full`) there is the check that a program
/// makes before it drops.
pub(super) fn wait_for_programs() {
    // SAFETY: no memory is passed.
    unsafe {
        libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0);
    }
}

/// `<linux/membarrier.h>`
const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
