"""A small folder in the schema of a task's data, to run the task's recipe where its data, or a GPU, are not at hand.

    python -m benchmarks.standin TASK FOLDER [--data D] [--images 256]

With --data, the folder gets the first images of these data; without it, scikit-learn's digits, 8 pixels wide and grey
in three channels. The test split has a quarter as many images. A run on such a folder is a rehearsal: the paper's
tables say how many images it had, and show it in a row of its own.
"""

import argparse
from pathlib import Path

from benchmarks.problems import test_images, train_images
from howsparse.tasks import load_recipe, load_task
from howsparse.tasks.data import Images
from howsparse.tasks.recipe import Data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", default=None)
    parser.add_argument("--images", type=int, default=256)
    options = parser.parse_args()
    recipe = load_recipe(options.task)
    source = load_task("digits") if options.data is None else load_task(options.task, options.data)
    options.folder.mkdir(parents=True, exist_ok=False)
    splits = {recipe.data.train: train_images(source).first(options.images)}
    splits |= {recipe.data.test: test_images(source).first(options.images // 4)}
    for split, images in splits.items():
        write_split(images, options.folder / f"{split}-00000-of-00001.parquet", recipe.data)
    print(f"{options.folder}: {options.images} images for {options.task}")


def write_split(images: Images, file: Path, schema: Data) -> None:
    """One split as the hub holds it: PNGs inside parquet."""
    import datasets
    from PIL.Image import fromarray

    pixels = images.pixels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()
    columns = {schema.image: [fromarray(p) for p in pixels], schema.label: images.labels.tolist()}
    features = datasets.Features({schema.image: datasets.Image(), schema.label: datasets.Value("int64")})
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(columns, features=features).to_parquet(file)


if __name__ == "__main__":
    main()
