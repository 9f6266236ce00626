"""Decide what a configuration is made of, once model, data and machine are known."""

from rlfr_vlm.errors import UserError
from rlfr_vlm.options import DataOptions, method_parts
from rlfr_vlm.starting_config.data import DataFacts
from rlfr_vlm.starting_config.lengths import RESPONSE_TOKENS, image_limit, prompt_limit, response_limit
from rlfr_vlm.starting_config.model import ModelFacts
from rlfr_vlm.starting_config.settings import Choices, system_prompt_for
from rlfr_vlm.starting_config.sizes import Machine, Workload, choose_batches, choose_fit


def choose_settings(
    method: str, model: ModelFacts, data: DataFacts, data_options: DataOptions, machine: Machine
) -> Choices:
    """Decide lengths, layout and batches.

    Raises:
        UserError: the method does not suit model or data, or the data is too small for the processes.
    """
    parts = method_parts(method)
    if "visual" in parts:
        _refuse_without_images(method, model, data)
    system_prompt = system_prompt_for(method, data)
    image = image_limit(model, data)
    prompt = prompt_limit(model, data, system_prompt, image)
    response = response_limit(model, data, prompt)
    work = Workload(
        model_name=model.name if model.config is not None else "",
        prompt=prompt.value or 0,
        response=response.value or RESPONSE_TOKENS,
        uses_flow="rlfr" in parts,
        whole_weights="visual" in parts or data.has_videos,
        uses_vllm=machine.vllm and not data.has_videos,
    )
    fit = choose_fit(work, machine)
    batches = choose_batches(machine.processes, fit.rows, data.number_of_rows)
    return Choices(method, model, data, data_options, system_prompt, image, prompt, response, machine, fit, batches)


def _refuse_without_images(method: str, model: ModelFacts, data: DataFacts) -> None:
    """Refuse the method visual where nothing has an image, as training would refuse it."""
    if model.takes_images is False:
        raise UserError(f"--method is {method}, but {model.name} takes no images. Leave the part visual out.")
    if data.report is not None and data.largest_image is None and not data.has_videos:
        raise UserError(
            f"--method is {method}, but {data.name} has no images: the part visual weighs tokens by what they owe to "
            "the image. Leave it out."
        )
