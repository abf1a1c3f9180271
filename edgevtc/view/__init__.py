"""Pictures of kept tokens: what a method keeps of a clip, as one HTML page or one contact sheet."""

from edgevtc.view.collect import view_video
from edgevtc.view.scene import Panel, Scene
from edgevtc.view.write import FORMATS, check_output, write_view

__all__ = ["FORMATS", "Panel", "Scene", "check_output", "view_video", "write_view"]
