"""The visualizer that a config names: draws one sheet per sample, in training, testing and inference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import master_only
from mmengine.structures import BaseDataElement
from mmseg.registry import VISUALIZERS
from mmseg.visualization import SegLocalVisualizer
from PIL import Image

from ..tasks import get_tasks
from .sheet import draw_sheets

__all__ = ['MultiTaskVisualizer']


@VISUALIZERS.register_module()
class MultiTaskVisualizer(SegLocalVisualizer):
    """Draws the input and, per task, truth, prediction and (on demand) errors of a sample on one sheet.

    Takes the place of mmseg's `SegLocalVisualizer`: under `SegVisualizationHook` (`tools/test.py --show-dir`) and under
    `MMSegInferencer`. The tasks are those of `dataset_meta['tasks']`, or else those that the sample has maps of.

    Args:
        name (str): Name of the instance. Defaults to 'visualizer'.
        image (np.ndarray, optional): An image to begin with, RGB. Defaults to None.
        vis_backends (list, optional): Configs of the backends. Defaults to None.
        save_dir (str, optional): Folder of the backends. Defaults to None.
        alpha (float): Opacity of semantic maps over the input, in [0, 1]. Defaults to 0.75.
        cell_size (int): Longer side of a picture on the sheet, in pixels. Defaults to 256.
        draw_error (bool): Add a row with the errors of the predictions, where truth and prediction are drawn both.
            Defaults to False.
    """

    def __init__(
        self,
        name: str = 'visualizer',
        image: np.ndarray | None = None,
        vis_backends: list | None = None,
        save_dir: str | None = None,
        *,
        alpha: float = 0.75,
        cell_size: int = 256,
        draw_error: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, image, vis_backends, save_dir, alpha=alpha, **kwargs)
        self.cell_size = cell_size
        self.draw_error = draw_error

    @master_only
    def add_datasample(
        self,
        name: str,
        image: np.ndarray,
        data_sample: BaseDataElement | None = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        show: bool = False,
        wait_time: float = 0,
        out_file: str | None = None,
        step: int = 0,
        with_labels: bool = True,
    ) -> None:
        """Draw a sample's sheet and show it, write it to a file, or hand it to all backends.

        Args:
            name (str): The image's name: window title, or name for the backends.
            image (np.ndarray): uint8 RGB (H, W, 3).
            data_sample (SegDataSample, optional): Truth and prediction. Defaults to None.
            draw_gt (bool): Draw the truth. Defaults to True.
            draw_pred (bool): Draw the prediction. Defaults to True.
            show (bool): Show the sheet in a window. Defaults to False.
            wait_time (float): How long to show it, in seconds; 0 is forever. Defaults to 0.
            out_file (str, optional): Write the sheet to this file rather than to the backends. Defaults to None.
            step (int): Step for the backends. Defaults to 0.
            with_labels (bool): Add the legend. Defaults to True.
        """
        tasks = (self.dataset_meta or {}).get('tasks')
        sheet = draw_sheets(
            [image],
            [data_sample],
            None if tasks is None else get_tasks(tasks),
            draw_gt=draw_gt,
            draw_pred=draw_pred,
            draw_error=self.draw_error and draw_gt and draw_pred,
            cell_size=self.cell_size,
            alpha=self.alpha,
            legend=with_labels,
        )
        self.set_image(sheet)
        if show:
            self.show(sheet, win_name=name, wait_time=wait_time)
        if out_file is None:
            self.add_image(name, sheet, step)
        else:
            Path(out_file).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(sheet).save(out_file)
