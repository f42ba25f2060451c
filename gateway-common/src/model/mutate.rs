//! Hostile variations of good frames, and noise. Deterministic: a seed tells the whole story.

/// A small generator of pseudo-random numbers (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which must not be 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next_u64() % bound as u64) as usize
    }

    fn octet(&mut self) -> u8 {
        self.next_u64() as u8
    }
}

/// The shortest frame that `BPF_PROG_TEST_RUN` takes.
pub const MIN_FRAME: usize = 14;
/// The longest that is made here.
pub const MAX_FRAME: usize = 512;

/// A frame made from one of `seeds`: changed in a few places, cut, grown, spliced with another, or
/// now and then nothing but noise.
pub fn mutate(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut frame = match random.below(16) {
        0 => noise(random),
        1 => splice(random, seeds),
        _ => seeds[random.below(seeds.len())].clone(),
    };
    for _ in 0..random.below(5) {
        change(random, &mut frame);
    }
    frame.resize(frame.len().clamp(MIN_FRAME, MAX_FRAME), 0);
    frame
}

fn noise(random: &mut Random) -> Vec<u8> {
    let length = MIN_FRAME + random.below(MAX_FRAME - MIN_FRAME);
    (0..length).map(|_| random.octet()).collect()
}

fn splice(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let first = &seeds[random.below(seeds.len())];
    let second = &seeds[random.below(seeds.len())];
    let cut = random.below(first.len().min(second.len()));
    [&first[..cut], &second[cut..]].concat()
}

fn change(random: &mut Random, frame: &mut Vec<u8>) {
    /// Octets that mean something somewhere: lengths, flags, protocols, next headers.
    const TELLING: [u8; 20] = [
        0, 1, 4, 6, 8, 17, 28, 43, 44, 45, 50, 58, 60, 0x0f, 0x20, 0x40, 0x47, 0x81, 0x86, 0xff,
    ];
    // Headers lie at the front: most changes go there.
    let reach = if random.below(4) == 0 {
        frame.len()
    } else {
        74
    };
    let at = random.below(reach.min(frame.len()).max(1));
    let Some(octet) = frame.get_mut(at) else {
        return;
    };
    match random.below(6) {
        0 => *octet ^= 1 << random.below(8),
        1 => *octet = random.octet(),
        2 | 3 => *octet = TELLING[random.below(TELLING.len())],
        4 => frame.truncate(at),
        _ => {
            let filler = random.octet();
            let length = frame.len() + random.below(64);
            frame.resize(length, filler);
        }
    }
}
