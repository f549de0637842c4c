//! When the worker takes no work by its own wish.

use jiff::Zoned;
use kiln_api::Rest;
use tokio::sync::mpsc::UnboundedSender;

use super::{Input, Worker};
use crate::{
    Happening,
    slot::Order,
    wishes::{
        WhenUsed,
        presence::{LOOK_EVERY, Watch},
    },
};

impl Worker {
    /// Looks once at the machine, where that matters, and decides.
    pub(super) async fn first_look(&mut self) -> Option<Watch> {
        let mut watching = None;
        if self.policy.watches() {
            let (watch, facts) = Watch::new().look().await;
            self.policy.saw(&facts, std::time::Instant::now());
            watching = Some(watch);
        }
        self.consider_rest();
        watching
    }

    pub(super) fn consider_rest(&mut self) {
        let rest = self.policy.rest(&Zoned::now());
        if rest == self.resting || self.leaving.is_some() {
            return;
        }
        let before = std::mem::replace(&mut self.resting, rest);
        // First of all the farm hears of it: what is handed back then is no fault.
        self.offer();
        match (before, self.resting.clone()) {
            (None, Some(rest)) => self.begin_rest(rest),
            (Some(before), Some(rest)) if before.why != rest.why => {
                self.happen(Happening::Rests { why: rest.why });
            }
            (Some(_), None) => {
                self.happen(Happening::Wakes);
                self.order_all(|| Order::Work);
                // What is started now is not ended at once because there was no work before.
                self.busy.1 = std::time::Instant::now();
                self.prestart();
            }
            _ => {}
        }
    }

    fn begin_rest(&mut self, rest: Rest) {
        self.happen(Happening::Rests { why: rest.why });
        let running = self.policy.when_used() == WhenUsed::Stop;
        self.order_all(|| Order::Rest { running });
        self.shop.garage.drop_spare();
    }
}

/// Tells the worker again and again what the machine is used for.
pub(super) async fn keep_looking(mut watch: Watch, inputs: UnboundedSender<Input>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let (looked, facts) = watch.look().await;
        watch = looked;
        if inputs.send(Input::Looked(facts)).is_err() {
            return;
        }
    }
}
