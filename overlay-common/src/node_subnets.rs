//! [`NodeSubnets`]: what one node owns.

use crate::Address;

/// The subnets that the node at an underlay address owns, zero where it owns none of a family. Value of `NODES`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeSubnets {
    pub(crate) v4: [u8; 4],
    pub(crate) v6: [u8; 16],
}

const _: () = assert!(size_of::<NodeSubnets>() == 20 && align_of::<NodeSubnets>() == 1);

impl NodeSubnets {
    /// The subnet of one family, if the node owns one.
    #[must_use]
    pub fn get<A: Address>(mut self) -> Option<A> {
        let subnet = *A::subnet_of(&mut self);
        (subnet != A::default()).then_some(subnet)
    }

    /// Notes that the node owns `subnet`, in the place of another of that family.
    pub fn set<A: Address>(&mut self, subnet: A) {
        *A::subnet_of(self) = subnet;
    }

    /// Notes that the node does not own `subnet` any more; says whether it is one that was noted.
    pub fn remove<A: Address>(&mut self, subnet: A) -> bool {
        let noted = A::subnet_of(self);
        let owned = *noted == subnet;
        if owned {
            *noted = A::default();
        }
        owned
    }

    /// Whether the node owns nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(feature = "user")]
// SAFETY: `repr(C)` over byte arrays, no padding (asserted above), every bit pattern is valid.
unsafe impl aya::Pod for NodeSubnets {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_owns_something_until_the_last_family_is_gone() {
        let (v4, v6) = ([10, 1, 16, 0], [0xfd; 16]);
        let mut subnets = NodeSubnets::default();
        subnets.set(v4);
        subnets.set(v6);
        assert_eq!((subnets.get(), subnets.get()), (Some(v4), Some(v6)));
        assert!(subnets.remove(v4) && !subnets.is_empty());
        assert_eq!(subnets.get::<[u8; 4]>(), None);
        assert!(subnets.remove(v6) && subnets.is_empty());
    }

    #[test]
    fn another_subnet_that_the_node_owns_by_now_stays() {
        let mut subnets = NodeSubnets::default();
        subnets.set([10, 1, 16, 0]);
        assert!(!subnets.remove([10, 1, 17, 0]));
        assert_eq!(subnets.get(), Some([10, 1, 16, 0]));
    }
}
