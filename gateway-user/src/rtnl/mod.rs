//! The few rtnetlink requests that steering, fence, addresses and pre-flight need, over one
//! blocking socket. Nothing key-bearing passes here (XFRM has its own socket).

mod address;
mod events;
mod filter;
mod link;
mod message;
mod neighbour;
mod route;
mod socket;

pub(crate) use address::{add_address, addresses, drop_address, hold_address};
pub(crate) use events::Events;
pub(crate) use filter::{
    EgressFilter, delete_egress, egress_filters, ensure_clsact, replace_egress,
};
pub(crate) use link::{Link, link_by_index, link_by_name, links};
pub(crate) use neighbour::{Neighbour, neighbours};
pub(crate) use route::{mark_route, route_to};
pub(crate) use socket::{NetlinkError, Socket};

#[cfg(test)]
mod tests;
