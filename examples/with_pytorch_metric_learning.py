"""Our losses in a peer's loop, and a peer's losses and miners in ours: one contract."""

import torch
from pytorch_metric_learning.losses import MultiSimilarityLoss
from pytorch_metric_learning.miners import MultiSimilarityMiner

import nearkin as nk

torch.manual_seed(0)
features, labels = torch.randn(64, 32), torch.arange(16).repeat(4)
head = torch.nn.Linear(32, 8)

miner = MultiSimilarityMiner()
ours = nk.losses.Contrastive(margin=0.5)
print("our loss, their miner:  ", ours(head(features), labels, miner(head(features), labels)))

theirs = nk.losses.Memory(MultiSimilarityLoss(), size=256)
print("their loss, our memory: ", theirs(head(features), labels))

row = nk.run(
    nk.Recipe(loss="pml:CircleLoss", loss_options={"gamma": 80}, epochs=1, dim=16), out="out/peers"
)
print("their loss, our runs:    recall@1", round(row["metrics"]["last"]["recall@1"], 3))
