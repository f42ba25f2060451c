use super::message::{Request, attribute, attributes, replies};
use super::{Socket, addresses, link_by_name, links};

#[test]
fn nested_attributes_read_back() {
    let mut request = Request::new(20, 5, &[1, 2, 3, 4]);
    request.string(3, "lo").nested(18, |nested| {
        nested.attribute(1, &[9]).attribute(2, &[8, 7]);
    });
    let bytes = request.finish(42).to_vec();
    let all: Vec<_> = replies(&bytes).collect();
    assert_eq!(all.len(), 1);
    let reply = &all[0];
    assert_eq!((reply.kind, reply.flags, reply.sequence), (20, 5, 42));
    assert_eq!(attribute(reply.payload, 4, 3), Some(&b"lo\0"[..]));
    let nested = attribute(reply.payload, 4, 18).unwrap();
    assert_eq!(attribute(nested, 0, 1), Some(&[9][..]));
    assert_eq!(attribute(nested, 0, 2), Some(&[8, 7][..]));
    assert_eq!(attributes(nested, 0).count(), 2);
}

#[test]
fn cut_and_lying_lengths_end_the_walk() {
    let mut request = Request::new(20, 5, &[0; 4]);
    request.attribute(1, &[1; 8]).attribute(2, &[2; 8]);
    let whole = request.finish(1).to_vec();
    for cut in 0..whole.len() {
        assert_eq!(replies(&whole[..cut]).count(), 0, "cut at {cut}");
        assert!(attributes(&whole[..cut], 20).count() <= 1);
    }
    for length in [0u16, 1, 3, u16::MAX] {
        let mut lying = whole.clone();
        lying[20..22].copy_from_slice(&length.to_ne_bytes());
        assert_eq!(attributes(&lying, 20).count(), 0, "length {length}");
    }
    for length in [0u32, 1, 15, u32::MAX] {
        let mut lying = whole.clone();
        lying[..4].copy_from_slice(&length.to_ne_bytes());
        assert_eq!(replies(&lying).count(), 0, "length {length}");
    }
}

#[test]
fn the_kernel_knows_its_loopback() {
    let mut socket = Socket::open().unwrap();
    let lo = link_by_name(&mut socket, "lo").unwrap().unwrap();
    assert_eq!(lo.index, 1);
    assert!(links(&mut socket).unwrap().contains(&lo));
    assert_eq!(link_by_name(&mut socket, "no-such-if").unwrap(), None);
    assert_eq!(
        link_by_name(&mut socket, "longer-than-any-name").unwrap(),
        None
    );
    let all = addresses(&mut socket).unwrap();
    assert!(all.iter().all(|address| address.index > 0));
}
