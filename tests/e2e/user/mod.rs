//! A user who works with Kiln for days, made from a seed: everything that the folders of two machines hold is compared
//! with a model after each step, and every frame with a cold render.
//!
//! A walk takes each action after each other once. Its parts are tests of their own; `scripts/user-test` walks on for
//! as long as one likes.

mod breaks;
mod call;
mod earlier;
mod farm;
mod files;
mod joint;
mod model;
mod render;
mod scene;
mod tree;
mod walk;
mod world;

use self::{
    walk::{Action, Pairs, Tally, circuit},
    world::World,
};

/// The walks of the ordinary tests, each of them in halves.
const SEEDS: [u64; 3] = [13, 14, 15];

impl World {
    fn act(&mut self, action: Action) {
        self.begin(action);
        match action {
            Action::Submit => self.submit(),
            Action::Render => self.render_on_farm(),
            Action::Local => self.render_here(),
            Action::Edit => self.edit(),
            Action::Texture => self.texture(),
            Action::Move => self.relocate(),
            Action::Cancel => self.cancel(),
            Action::Close => self.close(),
            Action::Restart => self.restart(),
            Action::Settings => self.settings(),
            Action::Fetch => self.fetch(),
            Action::Elsewhere => self.elsewhere(),
            Action::Delete => self.delete(),
            Action::Touch => self.touch(),
        }
    }

    /// Walks, and counts.
    fn walk(&mut self, actions: &[Action], pairs: &mut Pairs) {
        let mut before = None;
        for action in actions {
            self.act(*action);
            if let Some(before) = before {
                pairs.count(before, *action);
            }
            before = Some(*action);
        }
        self.finish();
    }
}

/// The two halves of a walk: the second begins with the last step of the first, so that each pair lies in one of them.
fn halves() -> [std::ops::Range<usize>; 2] {
    let middle = Action::CIRCUIT / 2;
    [0..middle + 1, middle..Action::CIRCUIT]
}

fn half(seed: u64, half: usize) {
    let steps = halves()[half].clone();
    let mut pairs = Pairs::NONE;
    let mut world = World::new(seed, steps.start);
    world.walk(&circuit(seed)[steps], &mut pairs);
    println!("{pairs}\n{}", world.tally);
}

#[test]
fn the_walks_hold_every_ordered_pair_of_actions() {
    for seed in SEEDS {
        let mut pairs = Pairs::NONE;
        for steps in halves() {
            circuit(seed)[steps].windows(2).for_each(|pair| pairs.count(pair[0], pair[1]));
        }
        assert_eq!(pairs.missing(), 0, "{pairs}");
    }
}

#[test]
fn first_walk_first_half() {
    half(SEEDS[0], 0);
}

#[test]
fn first_walk_second_half() {
    half(SEEDS[0], 1);
}

#[test]
fn second_walk_first_half() {
    half(SEEDS[1], 0);
}

#[test]
fn second_walk_second_half() {
    half(SEEDS[1], 1);
}

#[test]
fn third_walk_first_half() {
    half(SEEDS[2], 0);
}

#[test]
fn third_walk_second_half() {
    half(SEEDS[2], 1);
}

/// `scripts/user-test STEPS [SEED [FROM]]`: whole walks, each from its own seed and with its own farm.
#[test]
#[ignore = "it takes as long as it is told: scripts/user-test"]
fn days_without_end() {
    let number = |name: &str, default: u64| {
        std::env::var(name)
            .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is {text}")))
    };
    let (steps, seed) = (number("KILN_USER_STEPS", 5000), number("KILN_USER_SEED", 1));
    let mut from = usize::try_from(number("KILN_USER_FROM", 0)).unwrap();
    let mut left = usize::try_from(steps).unwrap();
    let (mut pairs, mut tally) = (Pairs::NONE, Tally::default());
    for seed in seed.. {
        let walk = &circuit(seed)[from..];
        let walk = &walk[..walk.len().min(left)];
        let started = std::time::Instant::now();
        let mut world = World::new(seed, from);
        world.walk(walk, &mut pairs);
        tally.add(&world.tally);
        let seconds = started.elapsed().as_secs_f64();
        println!("seed {seed}: {} steps in {seconds:.1} s; {} to go", walk.len(), left - walk.len());
        left -= walk.len();
        from = 0;
        if left == 0 {
            break;
        }
    }
    println!("{pairs}\n{} pairs never came\n{tally}", pairs.missing());
}
