//! Values that are exactly their bytes.

/// A value that is exactly its bytes: no padding, no invalid bit patterns.
///
/// # Safety
/// Implemented only here for integers and arrays, and by [`wire!`](crate::wire!).
pub unsafe trait Wire: Copy + 'static {}

macro_rules! ints {
    ($($t:ty),*) => { $(
        // SAFETY: every bit pattern of an integer is a value, and integers have no padding.
        unsafe impl Wire for $t {}
    )* };
}
ints!(u8, u16, u32, u64, i8, i16, i32, i64);

// SAFETY: arrays add no padding between elements.
unsafe impl<T: Wire, const N: usize> Wire for [T; N] {}

/// Reads a `T` off the front of `bytes`; short input is `None`.
pub fn read<T: Wire>(bytes: &[u8]) -> Option<T> {
    if bytes.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: the length was checked, `Wire` has no invalid values, and the read may be unaligned.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// The bytes of a value.
pub fn bytes<T: Wire>(value: &T) -> &[u8] {
    // SAFETY: `Wire` values have no padding, so every one of their bytes is initialised.
    unsafe { core::slice::from_raw_parts(core::ptr::from_ref(value).cast::<u8>(), size_of::<T>()) }
}

/// Declares a structure both sides see, with its size in bytes.
#[macro_export]
macro_rules! wire {
    ($(#[$m:meta])* pub struct $name:ident [$size:literal] {
        $($(#[$fm:meta])* pub $f:ident : $t:ty),* $(,)?
    }) => {
        $(#[$m])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name { $($(#[$fm])* pub $f: $t),* }
        const _: () = {
            assert!(size_of::<$name>() == 0 $(+ size_of::<$t>())*,
                concat!(stringify!($name), " has implicit padding"));
            assert!(size_of::<$name>() == $size, concat!(stringify!($name), " changed size"));
            const fn field<T: $crate::wire::Wire>() {}
            $(field::<$t>();)*
        };
        // SAFETY: repr(C), every field is `Wire`, and the assertion above rules out padding.
        unsafe impl $crate::wire::Wire for $name {}
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    wire! {
        /// Two fields of different size.
        pub struct Pair [8] {
            /// First.
            pub a: u32,
            /// Second.
            pub b: [u16; 2],
        }
    }

    #[test]
    fn reads_back_what_was_written_and_refuses_short_input() {
        let pair = Pair { a: 7, b: [1, 2] };
        assert_eq!(read::<Pair>(bytes(&pair)), Some(pair));
        assert_eq!(read::<Pair>(&bytes(&pair)[..7]), None);
    }
}
